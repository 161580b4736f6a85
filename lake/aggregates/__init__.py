"""The aggregate tables: their measures, merged exactly, and publishing them."""
