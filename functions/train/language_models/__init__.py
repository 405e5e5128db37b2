"""Language models from files of other tools, and the graph that serves them."""
