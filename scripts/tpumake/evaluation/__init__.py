"""What a model finds in many pictures, held against labels and against the float network."""
