"""The ways that are timed, each a program `python -m benchmarks.ways.NAME LAKE OUT`, in the best form that was found."""
