"""Models with steps, compared with what the packages' own code makes of the same files.

A case is a file or several, and the outputs that the package computes from them. `steps/NAME.yaml` is what a publisher
writes; the request is what a client sends.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton

from pilotlight.runtime.datatypes import Array
from tests.load.packages.catalogue import PackagedGraph
from tests.load.packages.download import fetch_graph
from tests.load.packages.trial import Row, compare, publish

STEPS = Path(__file__).parent / "steps"


@dataclass(frozen=True)
class Case:
    """What is sent, and what the package's own code answers."""

    files: tuple[bytes, ...]
    expected: Mapping[str, Array]


@dataclass(frozen=True)
class SteppedModel:
    """A graph with its steps, `steps/NAME.yaml`, and the package's own code."""

    name: str
    graph: PackagedGraph
    input: str  # of the caller
    make_case: Callable[[Path], Case]  # of the graph's file
    tolerance: float = 1e-4  # of the largest |value|


def publish_stepped(models: Iterable[SteppedModel], store: Path) -> dict[str, Row]:
    """Publish the models with their steps."""
    rows = {}
    for model in models:
        row = rows[model.name] = Row(model.name, model.graph.requirement)
        steps = ("--processing", str(STEPS / f"{model.name}.yaml"))
        row.published = publish(fetch_graph(model.graph), row, store, *steps)
    return rows


def call_stepped(model: SteppedModel, url: str) -> dict[str, Any]:
    """Send the case's files, and compare the answer: the distance, or what went wrong."""
    case = model.make_case(fetch_graph(model.graph))
    found = call(url, model, case)
    apart = compare(found, case.expected)
    shapes = {name: list(array.shape) for name, array in case.expected.items()}
    return {"model": model.name, "apart": apart, "shapes": shapes, "equal": apart <= model.tolerance}


def call(url: str, model: SteppedModel, case: Case) -> dict[str, Array]:
    """Ask the server by tritonclient, in binary form."""
    elements = np.empty(len(case.files), object)
    elements[:] = case.files
    with triton.InferenceServerClient(url.removeprefix("http://"), network_timeout=120) as client:
        given = triton.InferInput(model.input, [len(case.files)], "BYTES")
        given.set_data_from_numpy(elements)
        wanted = [triton.InferRequestedOutput(name) for name in case.expected]
        answer = client.infer(model.name, [given], outputs=wanted)
        return {name: answer.as_numpy(name) for name in case.expected}
