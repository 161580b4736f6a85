"""Raw events: which files are current, which can be read, and their rows."""
