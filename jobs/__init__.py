"""The nightly job, its parts, and the command line."""
