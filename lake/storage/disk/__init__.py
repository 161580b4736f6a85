"""A folder tree on a local disk: durable changes, listing, and temporary files."""
