"""The drift function: each night it compares the requests to models with their training data."""
