"""Generate documents from the table of routes: `make routes` writes them."""
