"""The documents that parts of Pilotlight exchange: typed, without I/O."""
