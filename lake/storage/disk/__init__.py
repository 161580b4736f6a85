"""A folder tree on a local disk: changes that last, walks, and temporary names."""
