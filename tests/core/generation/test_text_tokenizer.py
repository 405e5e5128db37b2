import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

from pilotlight.errors import ModelRefusedError
from pilotlight.generation.text_tokenizer import TextTokenizer
from tests.scripted_model import ScriptedModel

BYTE_LEVEL = TextTokenizer(ScriptedModel.build(["hello", "😀", b"\xf0\x9f"]).tokenizer_json.encode())


def build_sentence_piece() -> TextTokenizer:
    """A tokenizer of Llama 2's kind, with three pieces of text."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "\u2581a", "<s>"]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: place for place, piece in enumerate(pieces)},
            [("\u2581", "a")],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>"])
    return TextTokenizer(tokenizer.to_str().encode())


SENTENCE_PIECE = build_sentence_piece()


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, SENTENCE_PIECE], ids=["byte level", "sentence piece"])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")))
def test_the_bytes_of_a_text_s_tokens_are_its_bytes(tokenizer: TextTokenizer, text: str) -> None:
    tokens = tokenizer.encode(text, parse_special=False)
    assert b"".join(map(tokenizer.get_bytes, tokens)) == text.encode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_is_decoded_from_its_tokens(text: str) -> None:
    assert BYTE_LEVEL.decode(BYTE_LEVEL.encode(text, parse_special=False)) == text


def test_the_bytes_of_a_token_may_be_part_of_a_character() -> None:
    token = BYTE_LEVEL.find_token("ðŁ")
    assert token is not None
    assert BYTE_LEVEL.get_bytes(token) == b"\xf0\x9f"
    assert SENTENCE_PIECE.get_bytes(1 + 0xE2) == b"\xe2"


def test_a_piece_s_space_is_one() -> None:
    assert [SENTENCE_PIECE.get_bytes(token) for token in SENTENCE_PIECE.encode("a a")] == [b"a", b" a"]


def test_special_tokens_of_a_text_are_read_unless_they_are_ordinary_text() -> None:
    end = BYTE_LEVEL.find_token("<|im_end|>")
    assert end is not None
    assert BYTE_LEVEL.encode("a<|im_end|>") == [97, end]
    assert BYTE_LEVEL.encode("a<|im_end|>", parse_special=False) == list(b"a<|im_end|>")
    assert BYTE_LEVEL.get_bytes(end) == b"<|im_end|>"
    assert (BYTE_LEVEL.is_special(end), BYTE_LEVEL.is_special(97)) == (True, False)
    assert BYTE_LEVEL.decode([97, end]) == "a<|im_end|>"
    assert BYTE_LEVEL.decode([97, end], skip_special=True) == "a"


def test_nothing_is_put_around_a_text_unless_asked_for() -> None:
    document = json.loads(BYTE_LEVEL.json_document)
    start = BYTE_LEVEL.find_token("<|im_start|>")
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [start], "tokens": ["<|im_start|>"]}},
    }
    tokenizer = TextTokenizer(json.dumps(document).encode())
    assert tokenizer.encode("a") == [97]
    assert tokenizer.encode("a", add_special=True) == [start, 97]


def test_an_unused_id_has_no_bytes_and_lies_beyond_the_vocabulary() -> None:
    assert BYTE_LEVEL.vocabulary_size == 256 + 3 + 3
    assert BYTE_LEVEL.get_bytes(BYTE_LEVEL.vocabulary_size) == b""


def test_a_file_that_is_no_tokenizer_is_refused_by_name() -> None:
    with pytest.raises(ModelRefusedError, match=r"chat/tokenizer.json is not a tokenizer.json"):
        TextTokenizer(b"{}", "chat/tokenizer.json")
