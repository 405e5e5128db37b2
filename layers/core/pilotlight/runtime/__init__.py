"""Models in memory: bytes from the store, sessions over them, and the budget that they share."""
