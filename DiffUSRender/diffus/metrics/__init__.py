"""How alike two images are, and how frames look."""
