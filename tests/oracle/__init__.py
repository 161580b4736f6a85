"""An independent oracle for the meaning of every number: written from the contract, never from the product.

`generate` makes lakes full of awkward cases, `tables` computes the tables with DuckDB SQL, and `model`
computes them once more in plain Python. Nothing in here imports `schemas`, `lake` or `jobs`.
"""
