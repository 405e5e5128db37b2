"""Protobuf's wire format is read as protobuf reads it: what a message holds, in any bytes, and what is no message."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.runtime import wire_format
from pilotlight.runtime.wire_format import FieldSizeError, WireField, walk_fields

onnx = pytest.importorskip("onnx")

INT64S = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(width=32, allow_nan=False)


@st.composite
def attributes(draw: st.DrawFn) -> Any:  # noqa: ANN401 - onnx.AttributeProto
    """A message with every wire type that onnx.proto3 has: numbers, packed lists, texts, floats and messages."""
    return onnx.AttributeProto(
        name=draw(st.text(max_size=5)),
        i=draw(INT64S),
        f=draw(FLOATS),
        s=draw(st.binary(max_size=300)),
        ints=draw(st.lists(INT64S, max_size=5)),
        floats=draw(st.lists(FLOATS, max_size=5)),
        strings=draw(st.lists(st.binary(max_size=5), max_size=5)),
        t=onnx.TensorProto(dims=draw(st.lists(INT64S, max_size=3)), double_data=draw(st.lists(FLOATS, max_size=3))),
        type=draw(st.sampled_from([1, 2, 3])),
    )


def list_values(content: bytes, number: int) -> list[Any]:
    return [value for each, _, value, _, _ in walk_fields(memoryview(content)) if each == number]


@given(attributes())
def test_a_message_holds_what_protobuf_reads(message: Any) -> None:  # noqa: ANN401 - onnx.AttributeProto
    content = message.SerializeToString()
    assert wire_format.read_name(memoryview(content), 1) == message.name
    assert [number for value in list_values(content, 3) for number in wire_format.decode_integers(value)] == [message.i]
    assert [number for value in list_values(content, 8) for number in wire_format.decode_integers(value)] == list(
        message.ints
    )
    assert list(map(bytes, list_values(content, 4))) == [message.s]
    assert list(map(bytes, list_values(content, 9))) == list(message.strings)
    assert [onnx.TensorProto.FromString(bytes(value)) for value in list_values(content, 5)] == [message.t]
    assert {number for number, *_ in walk_fields(memoryview(content))} == {
        each.number for each, _ in message.ListFields()
    }


@given(attributes())
def test_the_fields_are_the_whole_message(message: Any) -> None:  # noqa: ANN401 - onnx.AttributeProto
    content = message.SerializeToString()
    fields = list(walk_fields(memoryview(content)))
    assert b"".join(content[start:end] for *_, start, end in fields) == content
    assert [(number, value) for number, value in wire_format.iterate_fields(memoryview(content))] == [
        (number, value) for number, wire, value, _, _ in fields if wire in (wire_format.VARINT, wire_format.LEN)
    ]


@given(attributes(), st.data())
def test_a_message_that_is_cut_off_is_none_unless_it_is_for_protobuf(message: Any, data: st.DataObject) -> None:  # noqa: ANN401 - onnx.AttributeProto
    content = message.SerializeToString()
    beginning = content[: data.draw(st.integers(0, len(content)))]
    fields = try_to_walk(beginning)
    assert (fields is not None) == is_parsed(beginning)
    assert fields is None or fields == list(walk_fields(memoryview(content)))[: len(fields)]


def try_to_walk(content: bytes) -> list[WireField] | None:
    try:
        return list(walk_fields(memoryview(content)))
    except ValueError:
        return None


def is_parsed(content: bytes) -> bool:
    """Return whether protobuf takes the bytes as a message without known fields."""
    try:
        onnx.DeviceConfigurationProto.FromString(content)
    except Exception:  # noqa: BLE001 - google.protobuf.message.DecodeError, of a package that is onnx's
        return False
    return True


@given(st.binary(max_size=40))
@pytest.mark.parametrize("beginning", [b"", b"\x92\x06", b"\x88\x06", b"\x8d\x06", b"\x89\x06"])
def test_any_bytes_are_a_message_where_they_are_for_protobuf(beginning: bytes, content: bytes) -> None:
    fields = try_to_walk(beginning + content)
    if fields is not None:  # protobuf also looks into messages, of which this one has none with such a number
        known = {1, 2, 3}
        assert is_parsed(beginning + content) or {number for number, *_ in fields} & known
    else:
        groups = any(byte & 7 in (3, 4) for byte in content)  # that proto3 has no more, and that are refused here
        assert groups or not is_parsed(beginning + content)


@pytest.mark.parametrize(
    "content",
    [b"\x00\x01", b"\xf8\xff\xff\xff\x7f\x01", b"\x08" + b"\xff" * 10 + b"\x01", b"\x0f\x08", b"\x08", b"\x0a\x02a"],
    ids=["field 0", "key of 35 bits", "number of 11 bytes", "wire type 7", "no number", "short text"],
)
def test_what_is_no_message_is_none(content: bytes) -> None:
    assert try_to_walk(content) is None
    assert not is_parsed(content)


def test_a_field_that_is_cut_off_says_how_much_is_missing() -> None:
    with pytest.raises(FieldSizeError, match="field 7 of wire type 2 does not fit into it") as caught:
        list(walk_fields(memoryview(b"\x08\x01\x3a\x09abc")))
    assert (caught.value.number, caught.value.missing) == (7, 6)


@given(st.integers(0, 2**64 - 1))
def test_numbers_in_base_128(value: int) -> None:
    encoded = wire_format.encode_varint(value)
    assert wire_format.read_varint(memoryview(encoded), 0) == (value, len(encoded))


def test_a_number_of_more_than_64_bits_is_cut_as_protobuf_cuts_it() -> None:
    content = b"\x18" + b"\xff" * 9 + b"\x7f"
    (value,) = list_values(content, 3)
    assert list(wire_format.decode_integers(value)) == [onnx.AttributeProto.FromString(content).i] == [-1]


@given(st.lists(INT64S, max_size=5))
def test_signed_numbers(values: list[int]) -> None:
    packed = b"".join(wire_format.encode_varint(value % 2**64) for value in values)
    assert list(wire_format.decode_integers(memoryview(packed))) == values


@given(st.binary(max_size=20))
def test_names_keep_their_bytes(content: bytes) -> None:
    encoded = wire_format.encode_name(1, wire_format.decode_name(memoryview(content)))
    assert list_values(encoded, 1) == [memoryview(content)]


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_the_last_of_several_nested_numbers_counts(first: int, last: int) -> None:
    content = b"".join(
        wire_format.encode_message(2, wire_format.encode_message(1, wire_format.encode_integer(1, value)))
        for value in (first, last)
    )
    assert wire_format.read_nested_integer(memoryview(content), (2, 1, 1)) == last
    assert wire_format.read_nested_integer(memoryview(content), (2, 3)) == 0
