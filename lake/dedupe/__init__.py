"""Deduplication: which of the events that share an idempotency key counts."""
