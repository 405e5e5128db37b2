"""Load that takes minutes to hours, and so is not part of `make test`: `python -m tests.load fuzz`, `... mixed`."""
