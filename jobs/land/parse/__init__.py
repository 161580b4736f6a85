"""From lines of JSON to typed columns."""
