"""The job that deduplicates events and brings the aggregate tables up to date."""
