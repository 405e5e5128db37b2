"""Where PATH of `pilotlight publish` keeps its ONNX graph, if it has one already: a file, a folder, a repository.

It converts nothing: what has no graph yet is for `pilotlight.cli.intake`.
"""

from dataclasses import dataclass
from pathlib import Path

from pilotlight.cli import repository
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.runtime import onnx_header
from pilotlight.settings import Settings

LARGEST_MB = 10_240  # of memory that a Lambda function may have
NAMES = ("model.onnx", "onnx/model.onnx")  # where Hugging Face keeps the graph among several


@dataclass(frozen=True)
class Source:
    """A graph, the folder of the files that tell how it is called, and its labels if they are told there."""

    graph: Path
    folder: Path
    labels: tuple[str, ...] = ()


def locate(path: Path) -> Source | None:
    """The graph that PATH holds, checked as far as its bytes tell; None when there is none.

    `InvalidInputError` when there are several to choose from, or the one must not be served.
    """
    found = inside(path) if path.is_dir() else alone(path)
    if found is not None:
        found_anatomy = onnx_header.check(found.graph)
        check_size(found.graph, [found.graph.parent / place for place in found_anatomy.files])
    return found


def alone(path: Path) -> Source | None:
    """A file as a graph, unless its name says that it is something else; inside a repository, with its config."""
    if path.suffix == ".onnx" and repository.of(path.parent) is not None:
        return inside(path.parent)
    return Source(path, path.parent) if path.suffix in {".onnx", ""} and ":" not in path.name else None


def inside(folder: Path) -> Source | None:
    """The graph of a Triton model, or the one of a Hugging Face folder."""
    model = repository.of(folder)
    if model is not None:
        return Source(*repository.graph(model))
    for name in NAMES:
        if (folder / name).is_file():
            return Source(folder / name, folder)
    graphs = sorted([*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")])
    if len(graphs) > 1:
        names = ", ".join(str(graph.relative_to(folder)) for graph in graphs)
        raise InvalidInputError(f"{folder} holds several graphs, {names}; name the one to publish.")
    return Source(graphs[0], folder) if graphs else None


def check_size(graph: Path, weights: list[Path]) -> None:
    """Refuse what no function has the memory for."""
    size, limit = sum(file.stat().st_size for file in [graph, *weights]), Settings(memory_mb=LARGEST_MB).model_bytes
    if size > limit:
        raise TooLargeError(
            f"{graph} takes {size:,} bytes with its weights, and a function of {LARGEST_MB:,} MB, the largest there "
            f"is, keeps {limit:,} bytes of models; quantize it first, or serve a smaller one."
        )
