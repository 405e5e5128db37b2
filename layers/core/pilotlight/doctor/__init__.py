"""What `pilotlight doctor` looks at: this machine, a store, a server. Each check ends in one sentence.

On a server nothing is changed: it is asked to read and to predict, and every other route is only asked with GET, which
none of them takes for a change. In a store of one's own, one object below `doctor/` is written and removed again.
"""
