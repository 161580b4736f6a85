"""Raw events as they lie in the lake, and which of their files can be read."""
