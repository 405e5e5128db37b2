"""Any model becomes a version: `python -m functions.train.intake PATH --into FOLDER` is what `pilotlight publish` starts."""
