"""Convert any model to a version: `pilotlight publish` runs `python -m functions.train.convert`."""
