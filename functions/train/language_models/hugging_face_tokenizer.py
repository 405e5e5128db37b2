"""The tokenizer of a Hugging Face folder: its document, chat template, and the tokens that begin and end texts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functions.train.convert.hf_checkpoint import read_json_object
from functions.train.language_models.tokenizer_document import fit_tokenizer_json, load_tokenizer
from pilotlight.errors import InvalidInputError

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
OTHER_TOKENIZERS = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
TEMPLATE_FILE, DEFAULT_TEMPLATE = "chat_template.jinja", "default"
FRONT_MATTER = re.compile(r"\A---\s*\n(?P<lines>.*?)\n---", re.DOTALL)
LICENCE_LINE = re.compile(r"^license:\s*['\"]?(?P<name>[\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True)
class FolderTokenizer:
    """What a folder says of its tokenizer."""

    tokenizer_json: bytes
    chat_template: str | None
    special_tokens: dict[str, str]
    begin_token: int | None
    end_tokens: tuple[int, ...]


def read_folder_tokenizer(folder: Path, config: Mapping[str, Any], vocabulary_size: int) -> FolderTokenizer:
    """Read the tokenizer's files; `InvalidInputError` if there is no tokenizer.json, or no token ends an answer."""
    content = fit_tokenizer_json(read_tokenizer_file(folder), str(folder / "tokenizer.json"), vocabulary_size)
    settings = read_optional_object(folder / "tokenizer_config.json")
    special_tokens = find_special_tokens(read_optional_object(folder / "special_tokens_map.json") | settings)
    tokenizer = load_tokenizer(content, str(folder))
    ids = {name: tokenizer.token_to_id(text) for name, text in special_tokens.items()}
    generation = read_optional_object(folder / "generation_config.json")
    own_end = ids.get("eos_token")
    ends = [*list_token_ids(generation), *list_token_ids(config), *([] if own_end is None else [own_end])]
    known = tuple(dict.fromkeys(token for token in ends if token < vocabulary_size))
    if not known:
        raise InvalidInputError(
            f"{folder} names no token that ends an answer: set eos_token_id in its generation_config.json."
        )
    adds_begin = settings.get("add_bos_token")
    begin, first = ids.get("bos_token"), tokenizer.encode("").ids[:1]
    if not isinstance(adds_begin, bool):
        adds_begin = begin is not None and first == [begin]
    template = find_chat_template(folder, settings)
    return FolderTokenizer(content, template, special_tokens, begin if adds_begin else None, known)


def read_tokenizer_file(folder: Path) -> bytes:
    """Read tokenizer.json; `InvalidInputError` says how to make it of what else there is."""
    file = folder / "tokenizer.json"
    if file.is_file():
        return file.read_bytes()
    others = [name for name in OTHER_TOKENIZERS if (folder / name).is_file()]
    advice = (
        f"make it of {others[0]} by `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)` of transformers"
        if others
        else "bring the one of the model"
    )
    raise InvalidInputError(f"{folder} has no tokenizer.json; {advice}.")


def read_optional_object(file: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one if there is no such file."""
    return read_json_object(file) if file.is_file() else {}


def find_special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Find the texts of the special tokens, written as texts or as objects with one."""
    texts = {}
    for name in SPECIAL_NAMES:
        given = settings.get(name)
        text = given.get("content") if isinstance(given, Mapping) else given
        if isinstance(text, str):
            texts[name] = text
    return texts


def list_token_ids(settings: Mapping[str, Any]) -> list[int]:
    """List the ids of `eos_token_id`, which is one or several."""
    given = settings.get("eos_token_id")
    candidates = given if isinstance(given, list) else [given]
    return [each for each in candidates if isinstance(each, int) and not isinstance(each, bool) and each >= 0]


def find_chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Find the chat template: of its own file, else of tokenizer_config.json, where there may be several by name."""
    file = folder / TEMPLATE_FILE
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError as exc:
            raise InvalidInputError(f"{file} is no text in UTF-8: {exc}.") from exc
    given = settings.get("chat_template")
    if isinstance(given, list):
        named = {each.get("name"): each.get("template") for each in given if isinstance(each, Mapping)}
        given = named.get(DEFAULT_TEMPLATE)
        if not isinstance(given, str):
            names = ", ".join(map(repr, named))
            raise InvalidInputError(
                f"{folder / 'tokenizer_config.json'} has the chat templates {names}, but no {DEFAULT_TEMPLATE!r}; "
                f"write the one to use to {TEMPLATE_FILE}."
            )
    return given if isinstance(given, str) else None


def find_licence(folder: Path) -> str | None:
    """Find the licence in the front matter of the folder's README.md; None if it does not say."""
    file = folder / "README.md"
    if not file.is_file():
        return None
    front = FRONT_MATTER.match(file.read_text(encoding="utf-8", errors="replace"))
    line = LICENCE_LINE.search(front["lines"]) if front else None
    return line["name"] if line else None
