"""Recipes: the schema that describes a training, its limits, and the built-in recipes. Needs pydantic and YAML.

The API, the command line and the training job all use it, so that a mistake gets the same sentence in each of them.
"""
