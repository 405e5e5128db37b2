"""The goals in numbers as measurements: `make bench`. Ratios within one run, both sides interleaved."""
