"""The jobs, one file or folder each, and the command line."""
