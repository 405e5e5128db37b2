"""The API keys in the store: created, listed and revoked by the command, read by the authorizer."""
