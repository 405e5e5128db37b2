"""What a deployment costs: prices, estimates, and the usage of each caller."""
