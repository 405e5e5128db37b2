"""Start our runtime client, which streams, in place of AWS's: run by `runtime_wrapper` with Lambda's own python."""

import os
import sys
from collections.abc import Mapping


def list_runtime_paths(environ: Mapping[str, str]) -> list[str]:
    """List where Lambda's own client looks for modules; a PYTHONPATH takes the place of the layers."""
    packages = f"/opt/python/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    layers = [] if "PYTHONPATH" in environ else [packages, "/opt/python"]
    return [environ["LAMBDA_TASK_ROOT"], *layers, environ.get("LAMBDA_RUNTIME_DIR", "/var/runtime")]


if __name__ == "__main__":
    sys.path[:0] = list_runtime_paths(os.environ)
    from pilotlight.runtime_client.serve import serve

    serve(os.environ["_HANDLER"], os.environ, streams=True)
