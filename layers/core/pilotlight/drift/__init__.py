"""Drift: whether a model's requests still look like its training data, by comparing histograms.

histograms  values to a histogram          training_profile  a version's histograms
statistics  two histograms to numbers      aggregation       captures, counted into a profile's bins
comparison  those numbers to a level       report            a version's captures against its profile
charts      histograms as bars
"""
