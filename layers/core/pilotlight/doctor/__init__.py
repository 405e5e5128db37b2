"""The checks of `pilotlight doctor`: this machine, a store, a server. Each check ends with one sentence.

Nothing on a server is changed: it reads and predicts, and every other route is only called with GET, which changes
nothing on any of them. In a store, one object below `doctor/` is written and removed again.
"""
