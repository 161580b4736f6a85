"""The aggregate tables: measures, their exact merging, and publishing."""
