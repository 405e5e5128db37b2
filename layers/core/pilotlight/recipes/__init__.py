"""Recipes: the words that describe a training, their limits, and the recipes of record. Brings pydantic and YAML.

Shared by who asks for a training, over HTTP or on the command line, and by who trains: a mistake is told at once, in
the same sentence, wherever it is made.
"""
