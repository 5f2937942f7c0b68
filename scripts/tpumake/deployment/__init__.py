"""Getting a model onto a device over SSH, back off it, and measuring it there."""
