"""The lake: paths, storage, and readers."""

from lake.lake import Lake

__all__ = ["Lake"]
