"""Versions of language models in a registry: scripted ones, and tiny decoders with real attention."""

from collections.abc import Sequence
from typing import Any

import msgspec

from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.manifest import Manifest, ManifestDraft, TensorSpec, Variant
from pilotlight.contracts.metric import SOURCE_PERPLEXITY
from pilotlight.generation.chat_template import ChatTemplate
from pilotlight.registry.registry import Registry
from pilotlight.runtime.golden_prompts import record_golden_prompts
from tests.scripted_model import CHAT_TEMPLATE, Part, ScriptedModel

INPUTS, OUTPUTS = (TensorSpec("text_input", "BYTES", (1,)),), (TensorSpec("text_output", "BYTES", (1,)),)
SCRIPT: tuple[Part, ...] = ("Paris", " is", " the", " capital", ".")
VOCABULARY = ("Paris", "Lyon", " is", " the", " capital")  # beside the bytes, so that all scripts have the same tokens


def build_scripted(script: Sequence[Part] = SCRIPT, **options: Any) -> ScriptedModel:  # noqa: ANN401 - of `ScriptedModel.build`
    """A scripted model with the tokens of `VOCABULARY`."""
    tokens = [256 + VOCABULARY.index(part) if part in VOCABULARY else part for part in script]
    return ScriptedModel.build(tokens, more_tokens=VOCABULARY, **options)


def describe_scripted(scripted: ScriptedModel, name: str = "chat", **fields: Any) -> ManifestDraft:  # noqa: ANN401 - the draft's
    """What a publisher says of a scripted model."""
    described = ManifestDraft(
        name=name,
        task="generation",
        inputs=INPUTS,
        outputs=OUTPUTS,
        variants={"int8": Variant("model.onnx", {"perplexity": 15.2, SOURCE_PERPLEXITY: 15.1})},
        serve="int8",
        metric="perplexity",
        budget=1.0,
        tokenizer="tokenizer.json",
        decoder=scripted.spec,
    )
    return msgspec.structs.replace(described, **fields)


def publish_scripted(
    registry: Registry,
    script: Sequence[Part] = SCRIPT,
    *,
    name: str = "chat",
    recorded: Sequence[Part] | None = None,
    fields: dict[str, Any] | None = None,
    **options: Any,  # noqa: ANN401 - of `ScriptedModel.build`
) -> Manifest:
    """Publish a scripted model; its golden prompts are those of the script `recorded`, if that is another one."""
    scripted = build_scripted(script, **options)
    source = scripted if recorded is None else build_scripted(recorded)
    template = ChatTemplate(CHAT_TEMPLATE, scripted.spec.special_tokens)
    golden = record_golden_prompts(source.open(chat_template=template), "int8")
    assert golden is not None
    files = {
        "model.onnx": scripted.graph,
        "tokenizer.json": scripted.tokenizer_json.encode(),
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
        "golden.json": encode_document(golden),
    }
    described = describe_scripted(scripted, name, golden="golden.json", **(fields or {}))
    return registry.publish_version(described, files)
