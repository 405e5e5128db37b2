"""The authorizer: who holds a token of the issuer may call the routes of its scopes."""
