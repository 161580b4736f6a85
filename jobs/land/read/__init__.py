"""From files of any format to lines of JSON."""
