"""Texts to prompts: tokens that begin as the model's prompts do, and long texts refused before all of them is split."""

from typing import TYPE_CHECKING

from pilotlight.errors import ContextLengthError, TooLargeError

if TYPE_CHECKING:
    from pilotlight.generation.language_model import LanguageModel

MAX_ENCODED_CHARACTERS = 2_000_000  # of a text; its tokens take up to 300 MB while it is split, and a second
# For each token of the context: the characters of a long text's beginning by which it is refused, few at first.
PROBED_CHARACTERS = (8, 64)
CUT_TOKENS = 32  # more that a beginning may have, where it is cut within a word


def encode_fitting_prompt(model: "LanguageModel", text: str, *, with_begin: bool = True) -> tuple[int, ...]:
    """Encode a prompt that is to be answered; `ContextLengthError` for a long text before all of it is split."""
    check_text_length(model, text)
    return encode_prompt(model, text, with_begin=with_begin)


def check_text_length(model: "LanguageModel", text: str) -> None:
    """Refuse a text whose beginning alone has more tokens than the context, and is much shorter than the whole."""
    length = model.spec.context_length
    for characters in (each * length for each in PROBED_CHARACTERS):
        if len(text) <= 2 * characters:
            return
        count = len(model.tokenizer.encode(text[:characters]))
        if count > length + CUT_TOKENS:
            raise ContextLengthError(count * len(text) // characters, length, is_estimate=True)


def encode_prompt(model: "LanguageModel", text: str, *, with_begin: bool = True) -> tuple[int, ...]:
    """Encode a prompt, whose written special tokens are those tokens; it begins with the model's begin token once."""
    if len(text) > MAX_ENCODED_CHARACTERS:
        raise TooLargeError(
            f"The text has {len(text):,} characters; at most {MAX_ENCODED_CHARACTERS:,} are split into tokens at once."
        )
    tokens, begin = tuple(model.tokenizer.encode(text, parse_special=True)), model.spec.begin_token
    if begin is None or not with_begin:
        return tokens
    while tokens[:1] == (begin,):  # of the template, and of the tokenizer
        tokens = tokens[1:]
    return (begin, *tokens)
