"""The start_training function: trainings over HTTP. It checks recipes, has jobs started for them, and tells of those."""
