"""Data sets: read, cleaned, split, encoded, and served as mini-batches."""
