"""The gate: what a version must show before it may become champion, measured as the handlers would serve it."""
