"""Parse lines of JSON into typed columns."""
