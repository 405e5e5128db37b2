"""P1 and P2: from exec to the posted answer, ours against the plain handler and against the floor.

An int8 encoder of 110 MB is in an object store on loopback, read over TLS, once unthrottled and once at the 78 MB/s
that a Lambda sandbox gets. All sides answer the same request, each in a new process, in turn.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from pilotlight.cli.publish import publish
from tests import fakes
from tests.benchmarks.encoder import Encoder
from tests.benchmarks.goal import Measure
from tests.benchmarks.objects import serve_objects
from tests.benchmarks.starts import Started, start

ROUNDS = 9
LAMBDA_RATE = 78e6  # bytes/s of one sandbox: 625 Mbit/s (AWS, Lambda quotas)
BUCKET = "models"
EVENT: dict[str, object] = json.loads((fakes.MODELS.parent / "events" / "predict-digits.json").read_text())
TOKENS = 32


@dataclass(frozen=True)
class Scene:
    """A folder that is served as an object store: the model as published, and the one file that it was made of."""

    folder: Path
    file: Path

    def ours(self, variables: Mapping[str, str], answers: int = 1) -> Started:
        """Pilotlight's handler, with the model's name in its preload variable."""
        store = {"PILOTLIGHT_STORE": f"s3://{BUCKET}", "PILOTLIGHT_PRELOAD": "encoder"}
        return start("functions.predict.handler.handle", event(), {**variables, **store}, answers)

    def plain(self, variables: Mapping[str, str]) -> Started:
        """The plain handler."""
        key = str(self.file.relative_to(self.folder / BUCKET))
        found = {**variables, "MODEL_BUCKET": BUCKET, "MODEL_KEY": key}
        return start("tests.benchmarks.plain.handle", event(), found)

    def floor(self) -> Started:
        """onnxruntime alone, on the file."""
        return start("tests.benchmarks.floor.handle", event(), {"MODEL_PATH": str(self.file)})


@contextmanager
def scene() -> Iterator[Scene]:
    """The model, made and published."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / BUCKET / "plain" / "encoder.onnx"
        file.parent.mkdir(parents=True)
        onnx.save(Encoder(seed=0).model(), file)
        with redirect_stdout(StringIO()):  # it prints the reference
            publish(file, "encoder", precision="int8", store=str(folder / BUCKET), json=False)
        yield Scene(folder, file)


def event() -> dict[str, object]:
    """A V2 request of some tokens, as the gateway hands it over."""
    tensor = {"name": "ids", "shape": [1, TOKENS], "datatype": "INT64", "data": list(range(1000, 1000 + TOKENS))}
    body = base64.b64encode(json.dumps({"inputs": [tensor]}).encode()).decode()
    path = "/v2/models/encoder/infer"
    return EVENT | {"body": body, "isBase64Encoded": True, "path": path, "pathParameters": {"model": "encoder"}}


def measure() -> list[Measure]:
    """P1: ours and the plain handler, unthrottled and at Lambda's rate."""
    with scene() as here:
        fast, slow = (compared(here, rate) for rate in (0, LAMBDA_RATE))
    return [
        Measure("P1", f"cold start {told(fast, 'plain')}", fast["ours"] / fast["plain"], 0.30),
        Measure("P1", f"the same at 78 MB/s, {told(slow, 'plain')}", slow["ours"] / slow["plain"], 0.45),
    ]


def compared(here: Scene, rate: float) -> dict[str, float]:
    """Ours and the plain handler on a link of so many bytes per second."""
    with serve_objects(here.folder, rate) as variables:
        return medians({"ours": lambda: here.ours(variables), "plain": lambda: here.plain(variables)})


def measure_floor() -> list[Measure]:
    """P2: ours and the floor, unthrottled."""
    with scene() as here, serve_objects(here.folder) as variables:
        found = medians({"ours": lambda: here.ours(variables), "floor": here.floor})
    return [Measure("P2", f"cold start {told(found, 'floor')}", found["ours"] / found["floor"], 0.75)]


def medians(sides: Mapping[str, Callable[[], Started]]) -> dict[str, float]:
    """The median seconds of each side, taken in turn after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    answers = {name: values(side()) for name, side in sides.items()}
    for found in answers.values():
        np.testing.assert_allclose(found, answers["ours"], atol=0.02)
    for _ in range(ROUNDS):
        for name, side in sides.items():
            started = side()
            values(started)
            seconds[name].append(started.seconds)
    return {name: median(times) for name, times in seconds.items()}


def values(started: Started) -> list[float]:
    """The numbers of an answer; a process that is fast because it fails is not compared."""
    if started.answer.get("statusCode") != 200:
        raise RuntimeError(f"The handler answered {started.answer}")
    found: list[float] = json.loads(started.answer["body"])["outputs"][0]["data"]
    return found


def told(seconds: Mapping[str, float], other: str) -> str:
    """The two sides in milliseconds."""
    return f"ours {seconds['ours'] * 1000:.0f} ms / {other} {seconds[other] * 1000:.0f} ms"
