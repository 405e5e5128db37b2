"""Read and write protobuf's wire format (protobuf.dev/programming-guides/encoding), without protobuf's own package.

A message is a view of bytes, and so is what is read from it: nothing is copied, and a file that is mapped is read only
where somebody looks. The module knows no message of anybody's.
"""

from collections.abc import Iterator, Sequence

VARINT, I64, LEN, I32 = 0, 1, 2, 5  # wire types
FIXED_SIZES = {I64: 8, I32: 4}  # bytes
MAX_KEY, MAX_VARINT = (1 << 32) - 1, (1 << 64) - 1
FieldValue = int | memoryview
# A field: its number, its wire type, its value, and where it begins with its key and ends.
WireField = tuple[int, int, FieldValue, int, int]


class FieldSizeError(ValueError):
    """A field of a message is longer than the message."""

    def __init__(self, number: int, wire: int, missing: int) -> None:
        super().__init__(f"field {number} of wire type {wire} does not fit into it")
        self.number, self.missing = number, missing


def walk_fields(message: FieldValue) -> Iterator[WireField]:
    """Yield every field of a message in its order; `ValueError` where it is cut off, or no message.

    The value of a fixed-size number is its bytes.
    """
    message = as_message(message)
    start, end = 0, len(message)
    while start < end:
        key, offset = read_varint(message, start)
        number, wire = key >> 3, key & 7
        if not number or key > MAX_KEY:
            raise ValueError(f"{number} is not the number of a field")
        value: FieldValue
        if wire == VARINT:
            value, offset = read_varint(message, offset)
        else:
            size, offset = read_varint(message, offset) if wire == LEN else (FIXED_SIZES.get(wire, end), offset)
            if offset + size > end:
                raise FieldSizeError(number, wire, offset + size - end)
            value, offset = message[offset : offset + size], offset + size
        yield number, wire, value, start, offset
        start = offset


def iterate_fields(message: FieldValue) -> Iterator[tuple[int, FieldValue]]:
    """Yield the number and value of each field of a message, except fixed-size numbers; `ValueError` if cut off."""
    return ((number, value) for number, wire, value, _, _ in walk_fields(message) if wire in (VARINT, LEN))


def iterate_values(message: FieldValue, number: int) -> Iterator[FieldValue]:
    """Yield the values of the fields of one number, except fixed-size numbers."""
    return (value for each, wire, value, _, _ in walk_fields(message) if each == number and wire in (VARINT, LEN))


def read_varint(message: memoryview, offset: int) -> tuple[int, int]:
    """Return a number in base 128 of at most 64 bits, and the offset after it."""
    end = len(message)
    if offset < end and message[offset] < 0x80:  # nearly all are so small
        return message[offset], offset + 1
    value = 0
    for shift in range(0, 70, 7):
        if offset >= end:
            break
        byte = message[offset]
        value, offset = value | (byte & 0x7F) << shift, offset + 1
        if byte < 0x80:
            return value & MAX_VARINT, offset
    raise ValueError("a number in it does not end")


def as_message(value: FieldValue) -> memoryview:
    """Return the bytes of a field that holds a message; `ValueError` if it is a number."""
    if isinstance(value, int):
        raise ValueError("a message is a number")  # noqa: TRY004 - the file is wrong, not the caller
    return value


def decode_text(value: FieldValue | None) -> str:
    """Decode a string field; empty if it is missing."""
    return str(value, "utf-8") if isinstance(value, memoryview) else ""


def decode_name(value: FieldValue) -> str:
    """Decode a string field whose bytes need not be UTF-8; `encode_name` gives the same bytes again."""
    return str(value, "utf-8", "surrogateescape") if isinstance(value, memoryview) else ""


def decode_integers(value: FieldValue) -> Iterator[int]:
    """Yield the signed numbers of a repeated int64, packed or not."""
    numbers = [value] if isinstance(value, int) else []
    offset = 0
    while isinstance(value, memoryview) and offset < len(value):
        number, offset = read_varint(value, offset)
        numbers.append(number)
    yield from (number - (1 << 64) if number >> 63 else number for number in numbers)


def read_name(message: FieldValue, number: int) -> str:
    """Return the last text of this field number; empty if there is none."""
    name = ""
    for value in iterate_values(message, number):
        name = decode_name(value)
    return name


def read_nested_integer(message: FieldValue, path: Sequence[int]) -> int:
    """Return the number at the end of a path of field numbers, the last if there are several; 0 if there is none."""
    values = [message]
    for number in path:
        values = [inner for value in values if not isinstance(value, int) for inner in iterate_values(value, number)]
    return next((value for value in reversed(values) if isinstance(value, int)), 0)


def encode_message(number: int, content: bytes) -> bytes:
    """Encode a field of bytes, text or a message."""
    return encode_varint(number << 3 | LEN) + encode_varint(len(content)) + content


def encode_name(number: int, name: str) -> bytes:
    """Encode a field of a text as `decode_name` gives it."""
    return encode_message(number, name.encode("utf-8", "surrogateescape"))


def encode_integer(number: int, value: int) -> bytes:
    """Encode a field of a whole number that is not negative."""
    return encode_varint(number << 3 | VARINT) + encode_varint(value)


def encode_varint(value: int) -> bytes:
    """Encode a number in base 128."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
