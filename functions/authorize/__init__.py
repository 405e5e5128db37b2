"""The authorizer: the holder of one of the issuer's tokens may call the routes of its scopes."""
