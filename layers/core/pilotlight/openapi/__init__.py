"""The documents that are generated from the table of routes: `make routes` writes them."""
