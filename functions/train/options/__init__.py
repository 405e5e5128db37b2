"""The words of a recipe and their limits, part by part; what they do stands in the modules of the same names above."""
