"""A tokenizer for tests: a token for each byte, some words, and special tokens."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

WORDS = ("name", "arguments", '"}', '{"', '":', "tool_call", "Hello", "true", "12", "  ", "        ", "\n\n", "<tool")
SPECIAL = ("<|end|>", "<|end_of_turn|>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]")
END = 0


def build_tokenizer(special: tuple[str, ...] = SPECIAL[:2]) -> Tokenizer:
    """Build the tokenizer; `special` tokens come first, and the first of them is the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = dict(zip(range(256), _order_bytes(), strict=True))
    words = ["".join(letters[byte] for byte in word.encode()) for word in WORDS]
    prefixes = {word[:end]: None for word in words for end in range(2, len(word) + 1)}  # each is merged from two
    tokens = list(dict.fromkeys([*special, *alphabet, *prefixes]))
    merges = [(prefix[:-1], prefix[-1]) for prefix in prefixes]
    model = models.BPE({token: i for i, token in enumerate(tokens)}, merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def _order_bytes() -> list[str]:
    """List the characters that stand for the bytes 0 to 255 in byte-level tokenizers, as GPT-2 chose them."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]
