"""Questions about usage: from their parts to their answers."""
