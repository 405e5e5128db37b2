"""On Lambda's python only the layers are installed: what a laptop needs beyond them is not tested there."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("uvicorn") else ["local", "cli", "client", "doctor"]
collect_ignore += [] if find_spec("scipy") else ["drift/test_statistics.py"]
