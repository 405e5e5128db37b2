"""Open and run a graph in its own process before it is opened here: `python -m pilotlight.gate.graph_probe GRAPH`.

A file of 181 bytes may hold a constant of 40 GB, or a loop without an end. Where no memory is left for it onnxruntime
names the node; the process has a limit of memory, so that this comes before the machine's own end.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pilotlight.errors import DeadlineError, InvalidInputError, TooLargeError
from pilotlight.native import child_process
from pilotlight.runtime import onnx_header

if TYPE_CHECKING:
    from pilotlight.runtime.golden_recorder import Feeds
    from pilotlight.runtime.session import Session

BASE_BYTES, BYTES_PER_BYTE = 2_000_000_000, 4  # of memory: for any graph, and for each byte of its weights
BASE_SECONDS, BYTES_PER_SECOND = 60.0, 20_000_000  # to open and run any graph, and to read its weights


def check_graph_runs(graph: Path) -> None:
    """Raise `InvalidInputError` for a graph that does not open and run within limits of memory and time."""
    header = onnx_header.read_onnx_header(graph)
    size = sum(file.stat().st_size for file in (graph, *(graph.parent / place for place in header.external_files)))
    outcome = child_process.run_module(
        "pilotlight.gate.graph_probe",
        [str(graph)],
        memory_bytes=BASE_BYTES + BYTES_PER_BYTE * size,
        seconds=BASE_SECONDS + size / BYTES_PER_SECOND,
    )
    if outcome.failure:
        raise InvalidInputError(f"{graph} cannot be served: {outcome.failure}.")


def find_run_failure(session: "Session") -> str:
    """Return why made-up requests end for lack of memory or time; empty if they are answered, or refused at once."""
    from pilotlight.runtime import golden_recorder

    outputs = [spec.name for spec in session.outputs]
    for feed in golden_recorder.generate_candidates(session):
        deadline = time.monotonic() + golden_recorder.MAX_RUN_SECONDS
        try:
            golden_recorder.DEADLINE_RUNNER.run(session, feed, outputs, deadline)
        except TooLargeError as exc:
            return f"a made-up request of {describe_feed(feed)} needs too much memory: {exc}"
        except DeadlineError:
            return f"a made-up request of {describe_feed(feed)} takes longer than {golden_recorder.MAX_RUN_SECONDS:g} s"
        except InvalidInputError:
            continue  # made-up values need not suit a graph
    return ""


def describe_feed(feed: "Feeds") -> str:
    """Describe a request by the shapes of its inputs."""
    return ", ".join(f"{name} {list(values.shape)}" for name, values in feed.items()) or "no inputs"


def main() -> None:
    """Open and run the graph that is named; end with its failure on standard error."""
    from pilotlight.runtime.session import open_session

    child_process.exit_with_failure(lambda: find_run_failure(open_session(sys.argv[1])))


if __name__ == "__main__":
    main()
