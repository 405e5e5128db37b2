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
GRAPH_FILES = ("model.onnx", "onnx/model.onnx")  # where Hugging Face keeps the graph among several


@dataclass(frozen=True)
class GraphSource:
    """A graph, the folder of the files that tell how it is called, and its labels if they are told there."""

    graph: Path
    folder: Path
    labels: tuple[str, ...] = ()


def locate_graph(path: Path) -> GraphSource | None:
    """The graph that PATH holds, checked as far as its bytes tell; None when there is none.

    `InvalidInputError` when there are several to choose from, or the one must not be served.
    """
    source = locate_in_folder(path) if path.is_dir() else locate_in_file(path)
    if source is not None:
        header = onnx_header.check_onnx_file(source.graph)
        check_graph_size(source.graph, [source.graph.parent / place for place in header.external_files])
    return source


def locate_in_file(path: Path) -> GraphSource | None:
    """A file as a graph, unless its name says that it is something else; inside a repository, with its config."""
    if path.suffix == ".onnx" and repository.find_triton_model(path.parent) is not None:
        return locate_in_folder(path.parent)
    return GraphSource(path, path.parent) if path.suffix in {".onnx", ""} and ":" not in path.name else None


def locate_in_folder(folder: Path) -> GraphSource | None:
    """The graph of a Triton model, or the one of a Hugging Face folder."""
    model = repository.find_triton_model(folder)
    if model is not None:
        return GraphSource(*repository.find_version_graph(model))
    for name in GRAPH_FILES:
        if (folder / name).is_file():
            return GraphSource(folder / name, folder)
    graphs = sorted([*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")])
    if len(graphs) > 1:
        names = ", ".join(str(graph.relative_to(folder)) for graph in graphs)
        raise InvalidInputError(f"{folder} holds several graphs, {names}; name the one to publish.")
    return GraphSource(graphs[0], folder) if graphs else None


def check_graph_size(graph: Path, weights: list[Path]) -> None:
    """Refuse what no function has the memory for."""
    size, limit = (
        sum(file.stat().st_size for file in [graph, *weights]),
        Settings(memory_mb=LARGEST_MB).model_memory_budget,
    )
    if size > limit:
        raise TooLargeError(
            f"{graph} takes {size:,} bytes with its weights, and a function of {LARGEST_MB:,} MB, the largest there "
            f"is, keeps {limit:,} bytes of models; quantize it first, or serve a smaller one."
        )
