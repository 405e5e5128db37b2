"""The architectures: each module turns its options and the shape of the data into layers of torch."""
