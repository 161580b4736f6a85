"""What the lake has concluded about each partition, and what follows from it."""
