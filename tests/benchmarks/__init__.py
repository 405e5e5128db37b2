"""The goals of DESIGN.md section 7 as measurements: `make bench`. Ratios within one run, both sides interleaved."""
