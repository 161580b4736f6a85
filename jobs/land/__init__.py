"""The parts of landing: from bytes to events that keep the rules, and rows that do not."""
