"""The predict function: the Open Inference Protocol (V2) over the models of the store."""
