"""Queries of usage: a question, its plan, and its answer."""
