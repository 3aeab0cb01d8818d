"""Where things are: poses and the filters that work on volumes."""
