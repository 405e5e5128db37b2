"""Training runs and their jobs, as a store records them."""
