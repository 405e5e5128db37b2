"""The promote function: it runs when a version is published, a canary fails, or its bake time is over."""
