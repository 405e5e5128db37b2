"""Whether what a model is sent still looks like what it was trained on: histograms, and what they say when compared.

sketch      values to a histogram        profile     a version's histograms
statistics  two histograms to numbers    tally       what came, counted into a profile's bins
verdict     those numbers to words       inspection  a version's captures against its profile
"""
