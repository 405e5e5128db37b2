"""The architectures: each module builds layers of torch from its options and the shape of the data."""
