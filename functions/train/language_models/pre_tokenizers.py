r"""How byte-level tokenizers split a text before they join bytes, by the names that llama.cpp gives in GGUF files.

The expressions are those of the models' own `tokenizer.json`, and else of llama.cpp (src/llama-vocab.cpp).
"""

from typing import Any

from pilotlight.errors import UnsupportedError

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
AFTER_WORDS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + AFTER_WORDS
QWEN2 = SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + AFTER_WORDS
CAPITALS, SMALLS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
FIRST_SMALL, FIRST_CAPITAL = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}*{SMALLS}+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}+{SMALLS}*",
)
AFTER_CASED_WORDS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = rf"{FIRST_SMALL}{SUFFIXES}?|{FIRST_CAPITAL}{SUFFIXES}?|\p{{N}}{{1,3}}" + AFTER_CASED_WORDS
TEKKEN = rf"{FIRST_SMALL}|{FIRST_CAPITAL}|\p{{N}}" + AFTER_CASED_WORDS

LLAMA3_NAMES = ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2")
# One expression after the other splits what those before it have left whole.
EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt", "jais", "exaone4", "trillion"), (GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), (r"\p{N}", GPT2)),
    **dict.fromkeys((*LLAMA3_NAMES, "dbrx", "smaug-bpe"), (LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"), (QWEN2,)),
    **dict.fromkeys(("gpt-4o", "llama4"), (GPT4O,)),
    "tekken": (TEKKEN,),
}
WHOLE_WORDS = frozenset({*LLAMA3_NAMES, "tekken"})
WITH_BEGIN_TOKEN = WHOLE_WORDS


def build_pre_tokenizer(name: str, origin: str) -> dict[str, Any]:
    """Build the part of `tokenizer.json` that splits a text, then writes its bytes as letters."""
    if name not in EXPRESSIONS:
        raise UnsupportedError(
            f"{origin} splits texts as {name!r} (tokenizer.ggml.pre), which is not known; {', '.join(EXPRESSIONS)} "
            "are. Publish the model's Hugging Face folder instead."
        )
    splits: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
        for expression in EXPRESSIONS[name]
    ]
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*splits, letters]}


def keeps_whole_words(name: str) -> bool:
    """Return whether a part of a text that is a token is one, whatever the merges say."""
    return name in WHOLE_WORDS


def has_begin_token(name: str) -> bool:
    """Return whether texts begin with a token of their own where the file does not say."""
    return name in WITH_BEGIN_TOKEN
