"""A version opened and asked in a process of its own, as a cold function would: `python -m pilotlight.gate.probe`.

A process of its own because a graph may kill the one that opens it, and because only a fresh one tells what memory and
time opening takes. It reads an `Order` as JSON from standard input; standard output is the metrics'.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from pilotlight.contracts.manifest import Manifest, Precision, Reference, decode, encode
from pilotlight.errors import ModelRefusedError, PilotlightError
from pilotlight.registry.registry import Registry, version_path
from pilotlight.runtime import golden, golden_recorder, process_memory
from pilotlight.runtime.model_files import fetched
from pilotlight.runtime.model_manager import Catalog
from pilotlight.runtime.session import Array, Session, open_session
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store

ROUNDS = 30  # single requests, for the latency
BATCH = 256  # examples asked at once
EVALUATION = "evaluation.npz"  # of a version: the graph's inputs by name, and the targets
SECONDS = 600  # a version that takes longer than this is not served by a function


class Order(Struct, frozen=True):
    """What to open and ask."""

    store: str
    name: str
    version: int
    memory_mb: Annotated[int, Meta(ge=128)]
    evaluation: int | None  # the version whose test set it is asked
    answers: str  # path of the folder for what was found, probe.json, and the answers, <precision>.npy


class Probe(Struct, frozen=True, kw_only=True):
    """What was found. A version that cannot be opened has an `error` and no numbers."""

    error: str | None = None
    golden: str | None = None  # why the golden requests failed
    finite: bool | None = None  # whether made-up requests are answered with numbers; None where none was asked
    load_s: float = 0.0
    peak_mb: float = 0.0  # resident memory of the process, MB of 1,000,000 bytes
    latency_ms: float = 0.0  # median of single requests
    answered: tuple[Precision, ...] = ()  # variants whose answers were written


def probe(order: Order) -> Probe:
    """Run the order in a fresh process; one that dies is a version that cannot be opened."""
    done = subprocess.run(
        [sys.executable, "-m", "pilotlight.gate.probe"],
        input=encode(order),
        capture_output=True,
        timeout=SECONDS,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ORT_DISABLE_TELEMETRY": "1"},
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        return Probe(error=f"the process that opened it ended with {done.returncode}: {last or 'it said nothing'}")
    return decode(Path(order.answers, "probe.json").read_bytes(), Probe, "probe.json")


def look(order: Order) -> Probe:
    """Open the version as a handler does, then put golden requests, single requests and the test set to it."""
    catalog = Catalog.of(Settings(store=order.store, memory_mb=order.memory_mb), open_store(order.store))
    registry, started = catalog.registry, time.perf_counter()
    try:
        model = catalog.model(Reference(order.name, order.version))
    except PilotlightError as exc:
        return Probe(error=str(exc))
    load_s = time.perf_counter() - started
    refusal = replayed(registry, model.manifest, model.session)
    inputs = arrays(order, registry, model.session)
    return Probe(
        golden=refusal,
        finite=None if inputs else finite(model.session),
        load_s=load_s,
        latency_ms=latency(model.session, inputs) if inputs else 0.0,
        peak_mb=process_memory.peak() / 1e6,
        answered=answer(order, registry, model.manifest, model.session, inputs),
    )


def replayed(registry: Registry, manifest: Manifest, session: Session) -> str | None:
    """Why the golden requests fail, if they do."""
    if manifest.golden is None:
        return None
    stored = registry.store.get(version_path(manifest.name, manifest.version, manifest.golden))
    try:
        golden.replay(decode(stored.data, golden.Golden, manifest.golden), session)
    except PilotlightError as exc:
        return str(exc)
    return None


def finite(session: Session) -> bool | None:
    """Whether requests that are made up within the signature are answered with numbers; None where there are none."""
    answers = [session.run(feed) for feed in golden_recorder.made_up(session)]
    found = [np.isfinite(values).all() for answer in answers for values in golden_recorder.numbers(answer)]
    return all(found) if found else None


def arrays(order: Order, registry: Registry, session: Session) -> dict[str, Array]:
    """The test set's arrays that the graph takes; none when they are not all there."""
    if order.evaluation is None:
        return {}
    holder, wanted = registry.manifest(order.name, order.evaluation), [spec.name for spec in session.inputs]
    with fetched(registry.store, holder, holder.file(EVALUATION)) as path, np.load(path) as held:
        return {name: held[name] for name in wanted} if set(wanted) <= set(held.files) else {}


def latency(session: Session, inputs: dict[str, Array]) -> float:
    """The median time of a request of one example, in ms."""
    one, seconds = {name: values[:1] for name, values in inputs.items()}, []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        session.run(one)
        seconds.append(time.perf_counter() - started)
    return 1000 * median(seconds)


def answer(
    order: Order, registry: Registry, manifest: Manifest, served: Session, inputs: dict[str, Array]
) -> tuple[Precision, ...]:
    """Write the first output of each variant for the test set; the served one's session is open already."""
    if not inputs:
        return ()
    for precision, variant in manifest.variants.items():
        if precision == manifest.serve:
            np.save(Path(order.answers, f"{precision}.npy"), ask(served, inputs))
            continue
        with fetched(registry.store, manifest, manifest.file(variant.graph)) as path:
            np.save(Path(order.answers, f"{precision}.npy"), ask(open_session(path, order.memory_mb), inputs))
    return tuple(manifest.variants)


def ask(session: Session, inputs: dict[str, Array]) -> Array:
    """The first output for all examples, a batch at a time."""
    examples, first = len(next(iter(inputs.values()))), session.outputs[0].name
    parts = [
        session.run({name: values[start : start + BATCH] for name, values in inputs.items()}, [first])[first]
        for start in range(0, examples, BATCH)
    ]
    return np.concatenate(parts)


def main() -> None:
    """Read the order, look, write what was found."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        found = look(order)
    except ModelRefusedError as exc:  # raised by a variant other than the served one
        found = Probe(error=str(exc))
    Path(order.answers, "probe.json").write_bytes(encode(found))


if __name__ == "__main__":
    main()
