"""Timings of whole processes: Meterlake and its peers on the same generated events."""
