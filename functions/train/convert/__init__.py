"""Any model becomes a version: `python -m functions.train.convert` is what `pilotlight publish` starts."""
