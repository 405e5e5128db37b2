"""Locate the ONNX graph in PATH of `pilotlight publish`: a file, a folder or a repository.

It converts nothing: a model without a graph goes to `pilotlight.cli.model_conversion`.
"""

from dataclasses import dataclass
from pathlib import Path

from pilotlight.cli import file_format, hugging_face_cache, triton_repository
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.runtime import onnx_header
from pilotlight.runtime.classifier_graph import ClassifierOutputs
from pilotlight.settings import Settings

LARGEST_MB = 10_240  # of memory that a Lambda function may have
GRAPH_SUFFIXES = (".onnx", "")  # what a file is called that must be a graph
OBJECT_MARK = ":"  # between a file of Python and a name in it
GRAPH_FILES = ("model.onnx", "onnx/model.onnx")  # where Hugging Face keeps the graph among several


@dataclass(frozen=True)
class GraphSource:
    """A graph, the folder of the files that describe its inputs and outputs, and its labels, if it has some."""

    graph: Path
    folder: Path
    labels: tuple[str, ...] = ()
    classifier: ClassifierOutputs | None = None  # what the graph itself says of its classes


def locate_graph(path: Path) -> GraphSource | None:
    """Locate the graph in PATH and check its bytes; return None if there is none.

    Raises `InvalidInputError` if there are several, or if it must not be served.
    """
    if OBJECT_MARK in str(path) and not path.exists():  # file.py:NAME
        return None
    if not path.exists() and path.suffix not in GRAPH_SUFFIXES:
        raise InvalidInputError(f"Cannot read {path}: there is no such file or folder.")
    file_format.check_file_format(path)
    source = locate_in_folder(path) if path.is_dir() else locate_in_file(path)
    if source is not None:
        hugging_face_cache.check_graph_location(source.graph)
        header = onnx_header.check_onnx_file(source.graph)
        check_graph_size(source.graph, [source.graph.parent / place for place in header.external_files])
    elif path.is_dir():
        file_format.check_folder_is_convertible(path)
    return source


def locate_in_file(path: Path) -> GraphSource | None:
    """Take a file as a graph if its bytes are one, or its name says so; inside a repository, use its config."""
    if path.suffix == ".onnx" and triton_repository.find_triton_model(path.parent) is not None:
        return locate_in_folder(path.parent)
    if onnx_header.is_onnx_file(path):
        return GraphSource(path, path.parent)
    file_format.check_file_name(path)
    return GraphSource(path, path.parent) if path.suffix in GRAPH_SUFFIXES else None


def locate_in_folder(folder: Path) -> GraphSource | None:
    """Locate the graph of a Triton model or of a Hugging Face folder."""
    model = triton_repository.find_triton_model(folder)
    if model is not None:
        return GraphSource(*triton_repository.find_version_graph(model))
    for name in GRAPH_FILES:
        if (folder / name).is_file():
            return GraphSource(folder / name, folder)
    graphs = sorted([*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")])
    if len(graphs) > 1:
        names = ", ".join(str(graph.relative_to(folder)) for graph in graphs)
        raise InvalidInputError(f"{folder} holds several graphs, {names}; name the one to publish.")
    return GraphSource(graphs[0], folder) if graphs else None


def check_graph_size(graph: Path, weights: list[Path]) -> None:
    """Refuse a graph that is too large for the memory of any function."""
    size, limit = (
        sum(file.stat().st_size for file in [graph, *weights]),
        Settings(memory_mb=LARGEST_MB).model_memory_budget,
    )
    if size > limit:
        raise TooLargeError(
            f"{graph} takes {size:,} bytes with its weights, and a function of {LARGEST_MB:,} MB, the largest there "
            f"is, keeps {limit:,} bytes of models; quantize it first, or serve a smaller one."
        )
