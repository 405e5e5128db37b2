"""Open and run a graph in its own process before it is opened here: `python -m pilotlight.gate.graph_probe GRAPH`.

A file of 181 bytes may hold a constant of 40 GB, or a loop without an end. Where no memory is left for it onnxruntime
names the node; the process has a limit of memory, so that this comes before the machine's own end. With a precision as
second word, it also searches for requests that the graph answers, and writes a `GraphExamination` as JSON.
"""

import sys
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.contracts.manifest import Precision
from pilotlight.errors import DeadlineError, InvalidInputError, TooLargeError
from pilotlight.native import child_process
from pilotlight.runtime import onnx_header
from pilotlight.runtime.golden_recorder import GoldenRecording
from pilotlight.runtime.session import GraphSignature, Session, describe_feeds, open_session

BASE_BYTES, BYTES_PER_BYTE = 2_000_000_000, 4  # of memory: for any graph, and for each byte of its weights
BASE_SECONDS, BYTES_PER_SECOND = 60.0, 20_000_000  # to open and run any graph, and to read its weights


class GraphExamination(Struct, frozen=True, kw_only=True):
    """A graph's signature and what it answers: golden requests, the shapes of what it took and gave in the first."""

    signature: GraphSignature
    recording: GoldenRecording
    input_shapes: dict[str, tuple[int, ...]] = {}
    output_shapes: dict[str, tuple[int, ...]] = {}
    tries: int = 0  # of made-up requests
    refusal: str = ""  # what the graph said to the last that it refused
    sample_failure: str = ""  # why the publisher's requests cannot be recorded: a sentence


def check_graph_runs(graph: Path) -> None:
    """Raise `InvalidInputError` for a graph that does not open and run within limits of memory and time."""
    run_probe(graph)


def examine_graph(graph: Path, precision: Precision, sample: Path | None = None) -> GraphExamination:
    """Check a graph as `check_graph_runs` does, and record golden requests: the publisher's, or made-up ones."""
    words = [precision, *([str(sample)] if sample else [])]
    found = decode_document(run_probe(graph, *words), GraphExamination, "the examination")
    if found.sample_failure:
        raise InvalidInputError(found.sample_failure)
    return found


def run_probe(graph: Path, *words: str) -> bytes:
    """Run this module in a process of its own; return what it writes."""
    header = onnx_header.read_onnx_header(graph)
    size = sum(file.stat().st_size for file in (graph, *(graph.parent / place for place in header.external_files)))
    outcome = child_process.run_module(
        "pilotlight.gate.graph_probe",
        [str(graph), *words],
        memory_bytes=BASE_BYTES + BYTES_PER_BYTE * size,
        seconds=BASE_SECONDS + size / BYTES_PER_SECOND,
    )
    if outcome.failure:
        raise InvalidInputError(f"{graph} cannot be served: {outcome.failure}.")
    return outcome.output


def record_examination(session: Session, graph: Path, precision: Precision, sample: Path | None) -> GraphExamination:
    """Record the publisher's requests, or made-up ones that the graph answers."""
    from pilotlight.gate import sample_requests
    from pilotlight.runtime import golden_recorder, request_search

    if sample is not None:
        try:
            feeds = sample_requests.load_samples(sample, session.inputs)
            answers = [session.run(feed) for feed in feeds]
        except InvalidInputError as exc:
            said = str(exc) if str(sample) in str(exc) else f"{sample} cannot be recorded. {exc}"
            return GraphExamination(signature=session.signature, recording=GoldenRecording(), sample_failure=said)
        search = request_search.SearchResult(list(feeds))
    else:
        search = request_search.search_requests(session)
        answers = [session.run(feed) for feed in search.feeds[:1]]
    recording = golden_recorder.record_requests(graph, precision, search.feeds, session)
    return GraphExamination(
        signature=session.signature,
        recording=recording,
        input_shapes={name: values.shape for name, values in (search.feeds[0] if search.feeds else {}).items()},
        output_shapes={name: values.shape for name, values in (answers[0] if answers else {}).items()},
        tries=search.tries,
        refusal=search.refusal,
    )


def find_run_failure(session: Session) -> str:
    """Return why made-up requests end for lack of memory or time; empty if they are answered, or refused at once."""
    from pilotlight.runtime import golden_recorder

    outputs = [spec.name for spec in session.outputs]
    for feed in golden_recorder.generate_candidates(session):
        deadline = time.monotonic() + golden_recorder.MAX_RUN_SECONDS
        try:
            golden_recorder.DEADLINE_RUNNER.run(session, feed, outputs, deadline)
        except TooLargeError as exc:
            return f"a made-up request of {describe_feeds(feed)} needs too much memory: {exc}"
        except DeadlineError:
            return (
                f"a made-up request of {describe_feeds(feed)} takes longer than {golden_recorder.MAX_RUN_SECONDS:g} s"
            )
        except InvalidInputError:
            continue  # made-up values need not suit a graph
    return ""


def main() -> None:
    """Open and run the graph that is named; end with its failure on standard error."""
    child_process.exit_with_failure(lambda: examine(*sys.argv[1:]))


def examine(graph: str, precision: str = "", sample: str = "") -> str:
    """Open and run a graph, and write its examination if a precision is given; return its failure."""
    session = open_session(graph)
    failure = find_run_failure(session)
    if precision and not failure:
        kind = msgspec.convert(precision, Precision)
        found = record_examination(session, Path(graph), kind, Path(sample) if sample else None)
        sys.stdout.buffer.write(encode_document(found))
    return failure


if __name__ == "__main__":
    main()
