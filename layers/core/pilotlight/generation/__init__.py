"""Text from language models: prompts and their templates, sampling, stop strings, caches, and constrained decoding."""
