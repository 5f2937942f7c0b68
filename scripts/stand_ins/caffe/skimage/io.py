"""Reading pictures: not needed."""
