"""A handler whose import fails."""

raise RuntimeError("the model is missing")
