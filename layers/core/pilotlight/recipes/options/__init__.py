"""The words of a recipe and their limits, part by part; what they do stands in the job's modules of the same names."""
