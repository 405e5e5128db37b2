"""Real models out of packages: published, served, called and compared with bare onnxruntime, then quantized.

    python -m tests.load packages [--only WORD] [--keep FOLDER] [--quantize auto] [--json FILE]
        [--environment PYTHON]

Each graph is published by the command into one store, which one local gateway serves; tritonclient calls it in binary
form and in JSON. A second store takes the same graphs quantized. A failure is one row with its sentence. Models
with steps are compared with the packages' own code; that of models for photographs runs in the environment given, or
in one that is made.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pilotlight.local.gateway import Gateway
from tests.load.packages import images
from tests.load.packages.audio import MODELS
from tests.load.packages.catalogue import PackagedGraph, list_graphs
from tests.load.packages.download import CACHE
from tests.load.packages.stepped import call_stepped, publish_stepped
from tests.load.packages.trial import THREADS, Row, call_served, publish_graph, publish_quantized

ROOT = Path(__file__).parents[3]
SHOWN = ("graph", "MB", "publish", "golden", "binary", "JSON", "quantized", "size", "speed", "apart", "failure")


def run(
    only: str = "", keep: str = "", quantize: str = "auto", json_file: str = "", environment: str = ""
) -> dict[str, Any]:
    """Try all graphs whose names have the word in them; print the table, and return what failed."""
    os.environ.update(THREADS)
    graphs = [graph for graph in list_graphs() if only in graph.name]
    with open_folder(keep) as folder:
        rows = [Row(graph.name, graph.requirement) for graph in graphs]
        for graph, row in zip(graphs, rows, strict=True):
            with note_failure(row):
                publish_graph(graph, row, folder / "store")
            tell(f"{row.graph}: {f'published in {row.publish_s:.1f} s' if row.published else row.failures}")
        with serve(folder / "store") as url:
            for graph, row in zip(graphs, rows, strict=True):
                with note_failure(row):
                    call_served(graph, row, url)
        if quantize != "none":
            for graph, row in zip(graphs, rows, strict=True):
                with note_failure(row):
                    publish_quantized(graph, row, folder / "quantized", quantize)
                tell(f"{row.graph}: {row.served or 'nothing'} is served with --quantize {quantize}")
        steps = try_steps(only, folder)
    photographs = try_images(only, environment)
    show_rows(rows)
    if json_file:
        Path(json_file).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    failures = [*list_failures(rows), *steps["failures"], *photographs["failures"]]
    return summarize(rows) | {"steps": steps, "images": photographs, "failures": failures}


@contextlib.contextmanager
def note_failure(row: Row) -> Iterator[None]:
    """Note whatever fails with one graph in its row, so that the others are tried."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - a load tells of everything that it has not foreseen
        row.failures.append(f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}")


def try_steps(only: str, folder: Path) -> dict[str, Any]:
    """Compare models with steps, such as a whole file of sound, with the packages' own code."""
    models = [model for model in MODELS if only in model.name]
    rows = publish_stepped(models, folder / "steps")
    results: list[dict[str, Any]] = []
    with serve(folder / "steps") as url:
        for model in models:
            with note_failure(rows[model.name]):
                results.append(call_stepped(model, url))
    different = [f"{one['model']}: {one['apart']} from its own code" for one in results if not one["equal"]]
    return {"seen": results, "failures": [*list_failures(list(rows.values())), *different]}


def try_images(only: str, environment: str) -> dict[str, Any]:
    """Compare models for photographs with the packages' own code."""
    row = Row("photographs", "")
    found: dict[str, Any] = {"compared": [], "failures": []}
    with note_failure(row):
        found = images.run(environment, only=only)
    different = [f"{one['photo']}: {one}" for one in found["failures"]]
    return {"seen": found["compared"], "failures": [*list_failures([row]), *different]}


@contextlib.contextmanager
def open_folder(keep: str) -> Iterator[Path]:
    """Open the folder of the stores: one to keep, or one that is removed."""
    if keep:
        Path(keep).mkdir(parents=True, exist_ok=True)
        yield Path(keep).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="pilotlight-load-packages-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def serve(store: Path) -> Iterator[str]:
    """Serve the store by the local gateway."""
    environment = {"PILOTLIGHT_STORE": str(store), "PILOTLIGHT_CALL_SECONDS": "-1", **THREADS}
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment=environment)
    with gateway.serve_in_background() as url:
        yield url


def show_rows(rows: Sequence[Row]) -> None:
    """Print the rows on standard error: a table on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        table = Table(*SHOWN)
        for row in rows:
            table.add_row(*row.cells)
        Console(stderr=True).print(table)
        return
    for row in rows:
        sys.stderr.write(" | ".join(row.cells) + "\n")


def tell(line: str) -> None:
    """Tell how far the load is, on standard error."""
    sys.stderr.write(f"{line}\n")


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Count what the issue asks for."""
    return {
        "cache": str(CACHE),
        "graphs": len(rows),
        "published": sum(row.published for row in rows),
        "equal": sum(row.is_equal for row in rows),
        "golden": sum(row.golden > 0 for row in rows),
        "quantized": sum(row.served not in {"", "fp32"} for row in rows),
        "slowest_publish_s": max((row.publish_s for row in rows), default=0.0),
    }


def list_failures(rows: Sequence[Row]) -> list[str]:
    """List the failures, each with its graph."""
    return [f"{row.graph}: {failure}" for row in rows for failure in row.failures]


__all__ = ["PackagedGraph", "run"]
