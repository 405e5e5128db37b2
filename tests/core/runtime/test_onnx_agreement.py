"""Graphs are read from their bytes as the onnx package reads them."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.runtime import onnx_editing, onnx_graph, onnx_header
from pilotlight.runtime.onnx_graph import OnnxGraph, OnnxNode

onnx = pytest.importorskip("onnx")

NAMES = st.sampled_from(["", "a", "b", "ü", "x/y:0"])
DOMAINS = st.sampled_from(["", "ai.onnx", "ai.onnx.ml", "mine"])
INT64S = st.integers(-(2**63), 2**63 - 1)


@st.composite
def tensors(draw: st.DrawFn) -> Any:  # noqa: ANN401 - onnx.TensorProto
    tensor = onnx.TensorProto(name=draw(NAMES), dims=[2], data_type=draw(st.sampled_from([1, 7])))
    if draw(st.booleans()):
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="offset", value="0")
        tensor.external_data.add(key="location", value=draw(st.sampled_from(["w.bin", "a/w.data"])))
    return tensor


@st.composite
def attributes(draw: st.DrawFn, depth: int) -> Any:  # noqa: ANN401 - onnx.AttributeProto
    held = onnx.AttributeProto(name=draw(st.sampled_from(["p", "q", "r"])))
    kind = draw(st.sampled_from(["text", "texts", "integers", "float", "tensor", "sparse", "graph"]))
    if kind == "text":
        held.s = draw(st.text(max_size=5)).encode()
    elif kind == "texts":
        held.strings.extend(draw(st.lists(st.binary(max_size=5), max_size=3)))
    elif kind == "integers":
        held.ints.extend(draw(st.lists(INT64S, max_size=4)))
    elif kind == "float":
        held.f = 0.5
    elif kind == "tensor":
        draw(st.sampled_from([held.t, held.tensors.add()])).CopyFrom(draw(tensors()))
    elif kind == "sparse":
        draw(st.sampled_from([held.sparse_tensor, held.sparse_tensors.add()])).values.CopyFrom(draw(tensors()))
    elif depth:
        draw(st.sampled_from([held.g, held.graphs.add()])).CopyFrom(draw(graphs(depth - 1)))
    return held


@st.composite
def nodes(draw: st.DrawFn, depth: int) -> Any:  # noqa: ANN401 - onnx.NodeProto
    return onnx.NodeProto(
        op_type=draw(st.sampled_from(["Add", "If", "F"])),
        domain=draw(DOMAINS),
        name=draw(NAMES),
        input=draw(st.lists(NAMES, max_size=3)),
        output=draw(st.lists(NAMES, max_size=2)),
        attribute=draw(st.lists(attributes(depth), max_size=2, unique_by=lambda each: each.name)),
    )


@st.composite
def graphs(draw: st.DrawFn, depth: int = 2) -> Any:  # noqa: ANN401 - onnx.GraphProto
    ends = st.lists(st.builds(lambda name: onnx.ValueInfoProto(name=name), NAMES), max_size=2)
    sparse = st.builds(lambda tensor: onnx.SparseTensorProto(indices=tensor), tensors())
    return onnx.GraphProto(
        name=draw(NAMES),
        node=draw(st.lists(nodes(depth), max_size=2)),
        initializer=draw(st.lists(tensors(), max_size=2)),
        sparse_initializer=draw(st.lists(sparse, max_size=1)),
        input=draw(ends),
        output=draw(ends),
        doc_string=draw(st.text(max_size=200)),
    )


@st.composite
def models(draw: st.DrawFn) -> Any:  # noqa: ANN401 - onnx.ModelProto
    function = st.builds(
        lambda name, domain, node, ends: onnx.FunctionProto(
            name=name, domain=domain, node=[node], input=ends, output=ends
        ),
        st.sampled_from(["F", "G"]), DOMAINS, nodes(1), st.lists(NAMES, max_size=2),
    )  # fmt: skip
    return onnx.ModelProto(
        ir_version=draw(st.integers(1, 14)),
        opset_import=[onnx.OperatorSetIdProto(domain=draw(DOMAINS), version=draw(st.integers(1, 30)))],
        graph=draw(graphs()),
        functions=draw(st.lists(function, max_size=2, unique_by=lambda each: (each.domain, each.name))),
    )


def assert_same_nodes(found: tuple[OnnxNode, ...], expected: Any) -> None:  # noqa: ANN401 - of NodeProto
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.operator, one.domain) == (other.op_type, other.domain)
        assert (one.inputs, one.outputs) == (tuple(other.input), tuple(other.output))
        assert set(one.attributes) == {each.name for each in other.attribute}
        for each in other.attribute:
            assert one.get_text(each.name).encode() == each.s
            assert one.get_integers(each.name) == tuple(each.ints)
            strings = [text.encode("utf-8", "surrogateescape") for text in one.get_texts(each.name)]
            assert strings == list(each.strings)
        for graph, inner in zip(
            one.parse_graphs(), [each.g for each in other.attribute if each.HasField("g")], strict=True
        ):
            assert_same_graph(graph, inner)


def assert_same_graph(found: OnnxGraph, expected: Any) -> None:  # noqa: ANN401 - onnx.GraphProto
    assert found.inputs == tuple(each.name for each in expected.input)
    assert found.outputs == tuple(each.name for each in expected.output)
    assert set(found.initializers) == {each.name for each in expected.initializer}
    assert_same_nodes(found.nodes, expected.node)
    assert set(found.producers) == {name for each in expected.node for name in each.output if name}


@given(models())
def test_a_graph_is_what_onnx_reads(expected: Any) -> None:  # noqa: ANN401 - onnx.ModelProto
    graph = onnx_graph.parse_model(memoryview(expected.SerializeToString()))
    assert_same_graph(graph, expected.graph)
    assert graph.functions.keys() == {(each.domain, each.name) for each in expected.functions}
    for each in expected.functions:
        body = graph.functions[each.domain, each.name]
        assert (body.inputs, body.outputs) == (tuple(each.input), tuple(each.output))
        assert_same_nodes(body.nodes, each.node)


def walk_messages(message: Any) -> Iterator[Any]:  # noqa: ANN401 - any message of onnx
    yield message
    for descriptor, held in message.ListFields():
        if descriptor.message_type is not None:
            for inner in held if isinstance(held, list) or not hasattr(held, "ListFields") else [held]:
                yield from walk_messages(inner)


@given(models())
def test_a_header_has_all_operators_and_all_files_of_weights(expected: Any) -> None:  # noqa: ANN401 - onnx.ModelProto
    header = onnx_header.parse_header(memoryview(expected.SerializeToString()))
    messages = list(walk_messages(expected))
    assert header.ir_version == expected.ir_version
    assert header.opsets == {each.domain: each.version for each in expected.opset_import}
    assert header.operators == {(each.domain, each.op_type) for each in messages if isinstance(each, onnx.NodeProto)}
    assert header.functions == {(each.domain, each.name) for each in expected.functions}
    assert set(header.external_files) == {
        entry.value
        for each in messages
        if isinstance(each, onnx.TensorProto) and each.data_location == onnx.TensorProto.EXTERNAL
        for entry in each.external_data
        if entry.key == "location"
    }


@given(models())
def test_what_is_not_edited_is_the_same_model(expected: Any) -> None:  # noqa: ANN401 - onnx.ModelProto
    content = expected.SerializeToString()
    kept = onnx_editing.rewrite_model(memoryview(content), lambda message, node: None, lambda name: None)
    again = onnx.ModelProto.FromString(kept)
    if expected.opset_import[0].domain not in onnx_editing.DEFAULT_DOMAINS:
        assert again.opset_import.pop().version == onnx_editing.DEFAULT_OPSET
    assert again == expected


@given(models(), models())
def test_parts_of_a_graph_are_joined(first: Any, second: Any) -> None:  # noqa: ANN401 - onnx.ModelProto
    content = first.SerializeToString() + second.SerializeToString()
    assert_same_graph(onnx_graph.parse_model(memoryview(content)), onnx.ModelProto.FromString(content).graph)
