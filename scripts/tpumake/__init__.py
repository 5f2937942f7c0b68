"""What the helpers in scripts/ share. Nothing here is run by itself."""
