"""The models function: which versions there are and which of them answer, over the registry alone."""
