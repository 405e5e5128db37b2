"""Measure a graph in a process of its own, since only a fresh one shows what memory that takes.

Nothing fails because a measurement does: the log says why there is none.
"""

import logging
import os
import subprocess
import sys
from typing import TypeVar

from msgspec import Struct

from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.errors import PilotlightError

LOG = logging.getLogger("pilotlight.runtime")
Result = TypeVar("Result", bound=Struct)


def measure_in_new_process(
    module: str, request: Struct, result: type[Result], timeout_seconds: float, what: str
) -> Result | None:
    """Run `python -m module` with the request as its input, and return the document that it prints.

    None, with a line in the log that begins with `what`, if that fails or takes longer than `timeout_seconds`.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=encode_document(request),
            capture_output=True,
            timeout=timeout_seconds,
            check=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ORT_DISABLE_TELEMETRY": "1"},
        )
        return decode_document(done.stdout, result, "the measurement")
    except (OSError, subprocess.SubprocessError, PilotlightError) as exc:
        said: bytes = getattr(exc, "stderr", None) or b""
        reason = said.decode(errors="replace").strip().rsplit("\n", 1)[-1] or str(exc)
        LOG.info("%s is not measured: %s", what, reason)
        return None
