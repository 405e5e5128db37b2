"""The registry API: versions, aliases and the model repository over HTTP."""
