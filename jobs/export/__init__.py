"""The job that writes billing revisions, and the check of what was delivered."""
