"""The training API function: trainings over HTTP. It checks recipes, starts jobs, and reports on them."""
