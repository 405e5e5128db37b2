"""Models in memory: files from the store, sessions over them, and the memory budget that they share."""
