from hypothesis import given
from hypothesis import strategies as st

from pilotlight.generation.text_stream import TextStream, decode_whole_characters


@given(st.text(st.characters(exclude_categories=["Cs"])), st.data())
def test_the_text_does_not_depend_on_where_its_bytes_are_cut(text: str, data: st.DataObject) -> None:
    content = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)))))
    stream = TextStream()
    pieces = [stream.push(content[a:b]) for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    assert "".join(pieces) == text


@given(st.lists(st.binary(max_size=4)))
def test_what_is_no_character_never_comes_out(chunks: list[bytes]) -> None:
    stream = TextStream()
    text = "".join(stream.push(chunk) for chunk in chunks)
    assert "\ufffd" not in text
    assert text == decode_whole_characters(b"".join(chunks))


def test_a_character_comes_out_with_its_last_byte() -> None:
    stream = TextStream()
    assert [stream.push(bytes([byte])) for byte in "é!".encode()] == ["", "é", "!"]
