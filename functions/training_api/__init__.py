"""The start_training function: trainings over HTTP. It checks recipes, has jobs started, and tells of them."""
