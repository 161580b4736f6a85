"""Read files of any format as lines of JSON."""
