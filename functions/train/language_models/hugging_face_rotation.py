"""How positions turn queries and keys, out of config.json: `rope_parameters` of transformers 5, or what 4 wrote.

https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_rope_utils.py has the formulas.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from functions.train.language_models.decoder_config import RotaryScaling
from functions.train.language_models.hugging_face_settings import (
    FULL_ATTENTION,
    WINDOWED_ATTENTION,
    FolderSettings,
    Positive,
    PositiveNumber,
)
from functions.train.language_models.rotary_tables import compute_yarn_attention_factor
from pilotlight.errors import InvalidInputError, UnsupportedError

PLAIN = "default"
OLD_KINDS = {"su": "longrope"}  # earlier names
USUAL_YARN = {"beta_fast": 32, "beta_slow": 1, "truncate": True, "mscale": 0, "mscale_all_dim": 0}


class RotationParameters(Struct, frozen=True):
    """What config.json says of a rotation, whatever its kind."""

    rope_type: str = PLAIN
    rope_theta: PositiveNumber | None = None
    partial_rotary_factor: PositiveNumber | None = None
    factor: PositiveNumber | None = None
    low_freq_factor: PositiveNumber = 1.0
    high_freq_factor: PositiveNumber = 4.0
    original_max_position_embeddings: Positive | None = None
    attention_factor: PositiveNumber | None = None
    short_factor: list[PositiveNumber] = []


@dataclass(frozen=True)
class Rotation:
    """The rotation of the layers of a kind."""

    base: float
    share: float  # of a head's values that are rotated
    scaling: RotaryScaling | None
    context_length: int  # tokens for which it holds


def read_rotation(file: Path, settings: FolderSettings, head_size: int) -> dict[str, Any]:
    """Read how positions turn the values of a head, and for how many positions that holds."""
    given = find_rotation_documents(settings)
    rotation = parse_rotation(file, given[FULL_ATTENTION], settings)
    rotated = int(head_size * rotation.share)
    if not 2 <= rotated <= head_size or rotated % 2:
        raise InvalidInputError(f"{file} rotates {rotated} of a head's {head_size} values; that must be even.")
    factors = rotation.scaling.factors if rotation.scaling is not None else ()
    if factors and len(factors) != rotated // 2:
        raise InvalidInputError(f"{file} has {len(factors)} factors of rotation for {rotated // 2} pairs of values.")
    windowed: dict[str, Any] = {}
    if settings.model_type == "gemma3_text":
        windowed_rotation = parse_rotation(file, given[WINDOWED_ATTENTION], settings)
        if windowed_rotation.scaling is not None:
            raise UnsupportedError(f"{file} scales the rotation of windowed layers, which is not read.")
        windowed["windowed_rotary_base"] = windowed_rotation.base
    return {
        "context_length": rotation.context_length,
        "rotary_base": rotation.base,
        "rotary_size": 0 if rotated == head_size else rotated,
        "rotary_scaling": rotation.scaling,
        **windowed,
    }


def find_rotation_documents(settings: FolderSettings) -> dict[str, Mapping[str, Any]]:
    """Find what config.json says of the rotation of layers with and without a window."""
    given = settings.rope_parameters or {}
    if FULL_ATTENTION in given:
        return {FULL_ATTENTION: given[FULL_ATTENTION], WINDOWED_ATTENTION: given.get(WINDOWED_ATTENTION) or {}}
    windowed = {"rope_theta": settings.rope_local_base_freq}
    return {FULL_ATTENTION: given or settings.rope_scaling or {}, WINDOWED_ATTENTION: windowed}


def parse_rotation(file: Path, document: Mapping[str, Any], settings: FolderSettings) -> Rotation:
    """Parse what config.json says of a rotation; what it leaves out is beside it."""
    given = {key: value for key, value in document.items() if value is not None}
    kind = str(given.get("rope_type", given.get("type", PLAIN)))
    given["rope_type"] = OLD_KINDS.get(kind, kind)
    try:
        parameters = msgspec.convert(given, RotationParameters)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"{file} has no valid rotation: {exc}.") from exc
    scaling = build_scaling(file, parameters, given, settings)
    longest = settings.max_position_embeddings
    return Rotation(
        base=parameters.rope_theta or settings.rope_theta,
        share=parameters.partial_rotary_factor or settings.partial_rotary_factor,
        scaling=scaling,
        # Phi has other factors for longer texts; what is written here is right for the short ones.
        context_length=min(longest, scaling.original_context) if scaling and scaling.kind == "longrope" else longest,
    )


def build_scaling(
    file: Path, parameters: RotationParameters, given: Mapping[str, Any], settings: FolderSettings
) -> RotaryScaling | None:
    """Build the change of frequencies; None where there is none."""
    longest = settings.max_position_embeddings
    original = parameters.original_max_position_embeddings or settings.original_max_position_embeddings or longest
    match parameters.rope_type:
        case "default":
            return None
        case "linear":
            return RotaryScaling("linear", factor=require_factor(file, parameters))
        case "llama3":
            return RotaryScaling(
                "llama3",
                factor=require_factor(file, parameters),
                low_freq_factor=parameters.low_freq_factor,
                high_freq_factor=parameters.high_freq_factor,
                original_context=original,
            )
        case "yarn":
            return build_yarn_scaling(file, parameters, given, original)
        case "longrope":
            return build_longrope_scaling(file, parameters, original, longest)
    raise UnsupportedError(
        f"{file} has a rotation of the kind {parameters.rope_type!r}; default, linear, llama3, yarn and longrope are "
        "read."
    )


def require_factor(file: Path, parameters: RotationParameters) -> float:
    """Return the factor by which contexts became longer; `InvalidInputError` if there is none."""
    if parameters.factor is None:
        raise InvalidInputError(f"{file} has a rotation of the kind {parameters.rope_type} without its 'factor'.")
    return parameters.factor


def build_yarn_scaling(
    file: Path, parameters: RotationParameters, given: Mapping[str, Any], original: int
) -> RotaryScaling:
    """Build YaRN's change of frequencies (Peng and others, 2023), with the usual bounds alone."""
    if unusual := [key for key, usual in USUAL_YARN.items() if given.get(key, usual) != usual]:
        raise UnsupportedError(f"{file} has {unusual[0]} {given[unusual[0]]!r} for YaRN, which is not read.")
    factor = require_factor(file, parameters)
    attention = parameters.attention_factor or compute_yarn_attention_factor(factor)
    return RotaryScaling("yarn", factor=factor, original_context=original, attention_factor=attention)


def build_longrope_scaling(file: Path, parameters: RotationParameters, original: int, longest: int) -> RotaryScaling:
    """Build LongRoPE's change of frequencies (Ding and others, 2024) for texts up to the original context."""
    if not parameters.short_factor:
        raise InvalidInputError(f"{file} has a rotation of the kind longrope without its 'short_factor'.")
    factor = parameters.factor or longest / original
    usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return RotaryScaling(
        "longrope",
        factor=factor,
        original_context=original,
        factors=tuple(parameters.short_factor),
        attention_factor=parameters.attention_factor or usual,
    )
