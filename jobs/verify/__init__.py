"""The job that derives everything once more and compares."""
