"""The job that writes billing revisions, and the verification of delivered ones."""
