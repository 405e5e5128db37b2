"""Capture of requests for drift reports: sampled, masked, and written outside the caller's path.

features   a request and its answer as a few numbers and categories for each example
masking    what the manifest's policy keeps, hashes and drops
hashing    keyed hashes, and their key
record     the records in a file of captures, and the file's key
recorder   from the handler's thread to the store, in another thread
reader     the files of captures, hour by hour
"""
