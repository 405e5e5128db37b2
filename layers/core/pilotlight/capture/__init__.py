"""What is kept of requests, for whoever asks later how the world has changed: sampled, masked, off the caller's path.

features   a request and its answer as a few numbers and words for each example
masking    what the manifest's policy lets through, what it hashes and what it drops
line       what stands in a file of captures, and where that file is
recorder   from the handler's thread to the store, by another thread
reading    the files again, hour by hour
"""
