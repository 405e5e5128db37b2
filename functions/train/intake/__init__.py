"""Any model becomes a version: `python -m functions.train.intake` is what `pilotlight publish` starts."""
