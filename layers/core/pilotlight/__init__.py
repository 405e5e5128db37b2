"""Pilotlight serves large models from serverless functions.

What handlers, training job, command and SDK share. Nothing is imported here: a handler's cold start pays for each line.
"""

__version__ = "0.1.0"
