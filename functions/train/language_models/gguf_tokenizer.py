"""`tokenizer.json` out of the metadata of a GGUF file, which holds the tokens but names the rules that split a text.

Two kinds are known: byte-level byte pairs (`gpt2`), whose merges the file lists, and SentencePiece's byte pairs
(`llama`), whose merges follow from the scores of the tokens. The document is that of Hugging Face's `tokenizers`.
"""

from typing import Any

import msgspec

from functions.train.language_models.gguf_header import GgufHeader
from functions.train.language_models.pre_tokenizers import build_pre_tokenizer, has_begin_token, keeps_whole_words
from pilotlight.errors import InvalidInputError, UnsupportedError

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # kinds of tokens: the last two are found in a text as they are
SPACE_LETTER = "\u2581"  # which SentencePiece writes for a space
MODEL_KEY = "tokenizer.ggml.model"
SPECIAL_NAMES = {
    "bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id", "sep_token": "seperator_token_id", "cls_token": "cls_token_id",
}  # fmt: skip
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Control tokens that end an answer whatever the metadata say, since many files name only one of two: llama.cpp's list.
END_TEXTS = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>", "_<EOT>",
    "<|end_of_text|>", "<end_of_utterance>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
})  # fmt: skip
MAX_TOKEN_CHARACTERS = 1024  # of a token, since how it is joined is looked for at each of its characters
NOT_STRIPPED = frozenset({"<unk>", "<s>", "<|endoftext|>"})


def build_tokenizer_json(header: GgufHeader) -> bytes:
    """Build `tokenizer.json`; `UnsupportedError` for a kind of tokenizer that is not known."""
    kind = header.metadata.get(MODEL_KEY)
    tokens = read_tokens(header)
    if kind == "gpt2":
        parts = build_byte_level_parts(header, tokens)
    elif kind == "llama":
        parts = build_sentence_piece_parts(header, tokens)
    else:
        raise UnsupportedError(
            f"{header.file} has a tokenizer of the kind {kind!r}; 'gpt2' and 'llama' are read. Publish the model's "
            "Hugging Face folder instead."
        )
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list_added_tokens(header, tokens),
        **parts,
    }
    return msgspec.json.encode(document)


def read_tokens(header: GgufHeader) -> list[str]:
    """Read the texts of the tokens by id."""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], str):
        raise InvalidInputError(
            f"{header.file} has no tokenizer.ggml.tokens; it is a part of a model, or damaged. Convert the model again."
        )
    if (longest := max(map(len, tokens))) > MAX_TOKEN_CHARACTERS:
        raise InvalidInputError(
            f"{header.file} has a token of {longest:,} characters, more than {MAX_TOKEN_CHARACTERS:,}; it is damaged."
        )
    return tokens


def read_token_kinds(header: GgufHeader, tokens: list[str]) -> list[int]:
    """Read the kinds of the tokens: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 a byte.

    Old converters took those that end an answer for normal ones.
    """
    kinds = header.metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        raise InvalidInputError(
            f"{header.file} has {len(tokens)} tokens, but not as many kinds of tokens; it is damaged."
        )
    return [CONTROL if token in END_TEXTS else kind for token, kind in zip(tokens, kinds, strict=True)]


def list_added_tokens(header: GgufHeader, tokens: list[str]) -> list[dict[str, Any]]:
    """List the tokens that are found in a text before it is split; only control tokens are left out of answers."""
    # Phi-3's special tokens, but for a few, take the spaces that follow them, which no file says.
    stripped = (header.metadata.get("general.architecture"), header.metadata.get(MODEL_KEY)) == ("phi3", "llama")
    added, seen = [], set()
    for token_id, kind in enumerate(read_token_kinds(header, tokens)):
        text = tokens[token_id]
        if kind not in {CONTROL, USER_DEFINED} or text in seen or not text:
            continue
        seen.add(text)
        added.append({
            "id": token_id, "content": text, "single_word": False, "lstrip": False,
            "rstrip": stripped and kind == CONTROL and text not in NOT_STRIPPED, "normalized": False,
            "special": kind == CONTROL,
        })  # fmt: skip
    return added


def map_token_ids(tokens: list[str]) -> dict[str, int]:
    """Map the tokens to their ids, the first one of two with the same text."""
    return {token: token_id for token_id, token in reversed(list(enumerate(tokens)))}


def build_byte_level_parts(header: GgufHeader, tokens: list[str]) -> dict[str, Any]:
    """Build the parts of a byte-level tokenizer."""
    merges = header.metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list) or not all(isinstance(merge, str) and " " in merge for merge in merges):
        raise InvalidInputError(
            f"{header.file} has no list of pairs as tokenizer.ggml.merges; convert the model again."
        )
    name = str(header.metadata.get("tokenizer.ggml.pre", "default"))
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": keeps_whole_words(name), "vocab": map_token_ids(tokens), "merges": merges,
    }  # fmt: skip
    return {
        "normalizer": None,
        "pre_tokenizer": build_pre_tokenizer(name, str(header.file)),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": model,
    }


def build_sentence_piece_parts(header: GgufHeader, tokens: list[str]) -> dict[str, Any]:
    """Build the parts of a tokenizer of SentencePiece's kind, with bytes for characters that it does not know."""
    prefixed = bool(header.metadata.get("tokenizer.ggml.add_space_prefix", True))
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_LETTER}
    prepend = [{"type": "Prepend", "prepend": SPACE_LETTER}] if prefixed else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefixed else []
    unknown = find_token(header, "unknown_token_id", tokens)
    letters = {"type": "Replace", "pattern": {"String": SPACE_LETTER}, "content": " "}
    model = {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
        "vocab": map_token_ids(tokens), "merges": rebuild_merges(tokens, read_scores(header, tokens)),
    }  # fmt: skip
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, spaces]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [letters, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": model,
    }


def read_scores(header: GgufHeader, tokens: list[str]) -> list[float]:
    """Read the scores of the tokens: the higher, the earlier a pair is joined to it."""
    scores = header.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens) or not isinstance(scores[0], int | float):
        raise InvalidInputError(f"{header.file} has {len(tokens)} tokens, but not as many scores; it is damaged.")
    return scores


def rebuild_merges(tokens: list[str], scores: list[float]) -> list[list[str]]:
    """Rebuild the merges: each way to join a token of two others, the best scored token first.

    As Hugging Face's converters do it; pairs of one token are ordered by the ids of their parts.
    """
    ids = map_token_ids(tokens)
    found = [
        (-scores[token_id], token_id, ids[token[:cut]], ids[token[cut:]], [token[:cut], token[cut:]])
        for token, token_id in ids.items()
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    return [pair for *_, pair in sorted(found)]


def find_token(header: GgufHeader, key: str, tokens: list[str]) -> str | None:
    """Find the text of the token whose id the metadata give; None if they give none of the vocabulary."""
    token_id = header.metadata.get(f"tokenizer.ggml.{key}")
    return tokens[token_id] if isinstance(token_id, int) and 0 <= token_id < len(tokens) else None


def find_special_tokens(header: GgufHeader) -> dict[str, str]:
    """Find the texts of the special tokens that chat templates name."""
    tokens = read_tokens(header)
    found = {name: find_token(header, key, tokens) for name, key in SPECIAL_NAMES.items()}
    return {name: text for name, text in found.items() if text is not None}


def find_end_tokens(header: GgufHeader, vocabulary_size: int) -> tuple[int, ...]:
    """Find the ids, below `vocabulary_size`, of the tokens that end an answer: those that the metadata name first."""
    tokens = read_tokens(header)[:vocabulary_size]
    named = [header.metadata.get(f"tokenizer.ggml.{key}") for key in END_KEYS]
    ends = [each for each in named if isinstance(each, int) and 0 <= each < len(tokens)]
    ends += [each for each, text in enumerate(tokens) if text in END_TEXTS]
    if not ends:
        raise InvalidInputError(f"{header.file} names no token that ends an answer (tokenizer.ggml.eos_token_id).")
    return tuple(dict.fromkeys(ends))


def find_begin_token(header: GgufHeader, vocabulary_size: int) -> int | None:
    """Find the token, below `vocabulary_size`, that every text begins with; None where the tokenizer adds none."""
    sentence_piece = header.metadata.get(MODEL_KEY) == "llama"
    usual = sentence_piece or has_begin_token(str(header.metadata.get("tokenizer.ggml.pre", "default")))
    begin = header.metadata.get("tokenizer.ggml.bos_token_id")
    is_known = isinstance(begin, int) and 0 <= begin < vocabulary_size
    return begin if is_known and header.metadata.get("tokenizer.ggml.add_bos_token", usual) else None
