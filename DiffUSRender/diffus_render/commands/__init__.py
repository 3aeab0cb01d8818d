"""The command line's longer commands, one file each."""
