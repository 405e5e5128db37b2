"""The promote function: what follows when a version is published, a canary fails, or its time is over."""
