"""What both modules read from the scene and write into it."""
