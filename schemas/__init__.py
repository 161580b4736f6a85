"""Definitions of meters, events and the rows of every table."""
