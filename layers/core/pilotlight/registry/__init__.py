"""Versions and aliases in a store: publish, move, approve, sign, prune."""
