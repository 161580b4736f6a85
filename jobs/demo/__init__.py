"""The demo: a small lake of the active-users use case."""
