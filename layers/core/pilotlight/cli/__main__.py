"""The command as a module: `python -m pilotlight.cli`."""

from pilotlight.cli import app

app()
