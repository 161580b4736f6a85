"""The state of a meter: the record of each partition, and which partitions are stale."""
