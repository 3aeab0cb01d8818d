"""Files: whole or absent, read into plain arrays in RAS and mm."""
