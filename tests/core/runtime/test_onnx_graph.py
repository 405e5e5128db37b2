"""Graphs are read from their bytes, and damaged files are refused in one sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.errors import InvalidInputError
from pilotlight.runtime import onnx_editing, onnx_graph, onnx_header
from pilotlight.runtime.onnx_graph import read_onnx_graph
from tests import fakes
from tests.graph_writer import FLOAT, attribute, model, node, part, value

Reader = Callable[[Path], object]
ENDS = [value("x", FLOAT, ["n", 3])], [value("y", FLOAT, ["n", 3])]


def test_names_that_are_not_in_utf_8_are_read_and_written(tmp_path: Path) -> None:
    content = model([node("Relu", ["x"], ["__"]), node("Softmax", ["__"], ["y"])], *ENDS).replace(b"__", b"\xe9\xff")
    (tmp_path / "m.onnx").write_bytes(content)
    graph = read_onnx_graph(tmp_path / "m.onnx")
    inner = graph.producers["y"].inputs[0]
    assert graph.producers[inner].operator == "Relu"
    assert b"\xe9\xff" in onnx_editing.encode_cast(inner, "z", FLOAT)


def test_attributes_are_read(tmp_path: Path) -> None:
    held = node("F", ["x"], ["y"], alpha=0.5, count=-3, mode="odd", many=[1, -2]) + part(
        5, attribute("all", ["a", "b"])
    )
    (tmp_path / "m.onnx").write_bytes(model([held], *ENDS))
    found = read_onnx_graph(tmp_path / "m.onnx").producers["y"]
    assert found.attributes.keys() == {"alpha", "count", "mode", "many", "all"}
    assert (found.get_text("mode"), found.get_integers("many"), found.get_texts("all")) == ("odd", (1, -2), ("a", "b"))
    assert (found.get_text("alpha"), found.get_integers("none"), found.get_texts("mode")) == ("", (), ())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_graph_or_a_value_error(content: bytes) -> None:
    for parse in (onnx_graph.parse_model, onnx_header.parse_header):
        try:
            parse(memoryview(content))
        except ValueError:
            continue


WHOLE = fakes.graph("double")
CUT_OFF = rf"m\.onnx is not a whole ONNX file: it has \d+ bytes of {len(WHOLE)} or more; download"


@pytest.mark.parametrize("read", [read_onnx_graph, onnx_header.read_onnx_header])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(
            WHOLE[:40], rf"has 40 bytes of {len(WHOLE) - 6} or more; download or export it again", id="in the graph"
        ),
        pytest.param(WHOLE[:-3], CUT_OFF, id="behind the graph"),
        pytest.param(WHOLE + b"\x80", r"m\.onnx is not an ONNX file: a number in it does not end\.$", id="more"),
        pytest.param(b"", r"m\.onnx is not an ONNX file: cannot mmap an empty file\.$", id="empty"),
        pytest.param(None, r"^Cannot read .*m\.onnx: No such file or directory\.$", id="none"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, read: Reader, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InvalidInputError, match=said):
        read(tmp_path / "m.onnx")
