"""`python -m pilotlight.runtime_client HANDLER`: serve a handler whose answers are sent in one piece."""

import os
import sys

from pilotlight.runtime_client.serve import serve

if __name__ == "__main__":
    serve(sys.argv[1], os.environ, streams=False)
