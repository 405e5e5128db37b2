"""Open a language model: its session, while another thread builds tokenizer and chat template.

Only functions that generate text import this module; the predict function neither needs it nor has all it stands on.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pilotlight.contracts.decoder import (
    INPUT_IDS,
    KEEP,
    LOGITS,
    SEQUENCE_LENGTHS,
    TOTAL_LENGTH,
    DecoderSpec,
    name_cache_inputs,
    name_cache_outputs,
)
from pilotlight.contracts.manifest import Datatype, Manifest
from pilotlight.errors import InvalidInputError, ModelRefusedError, format_cause
from pilotlight.generation.causal_model import CausalModel
from pilotlight.generation.language_model import LanguageModel
from pilotlight.generation.text_tokenizer import TextTokenizer
from pilotlight.native.calls import NativeCalls
from pilotlight.runtime import malloc
from pilotlight.runtime.environment_memory import DATA_LIMIT
from pilotlight.runtime.model_files import open_model_files, read_asset
from pilotlight.runtime.session import ORT_ERRORS, Session, build_session, clean_cause, open_decoder_session
from pilotlight.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from pilotlight.generation.chat_template import ChatTemplate
    from pilotlight.generation.constraints import ConstraintCompiler

Shape = tuple[int | None, ...]  # None where the contract leaves the size to the caller
TensorForm = tuple[Datatype, Shape]


def build_generation_error(cause: str) -> ModelRefusedError:
    """Build the error of a graph that fails on tokens which the engine has checked: so it is the version's fault."""
    return ModelRefusedError(f"The language model's graph failed: {cause}.")


GENERATING = NativeCalls("onnxruntime", build_generation_error, ORT_ERRORS, clean_cause, is_for_caller=True)


@dataclass(frozen=True)
class OpenedGraph:
    """A language model and the session that it runs."""

    session: Session
    model: LanguageModel


@dataclass(frozen=True)
class PromptParts:
    """What turns messages into tokens."""

    tokenizer: TextTokenizer
    chat_template: "ChatTemplate | None"


def open_language_model(store: ObjectStore, manifest: Manifest, memory_mb: int, cache_bytes: int) -> OpenedGraph:
    """Fetch, check and open a language model, which may keep `cache_bytes` of keys and values.

    Tokenizer and template are fetched first and built while the weights are fetched and packed; what compiles
    constraints after them, for which nobody waits but the first request with a constraint. Raises `ModelRefusedError`
    if a file is not what the manifest promises.
    """
    spec = get_decoder(manifest)
    contents = {file.path: read_asset(store, manifest, file) for file in manifest.asset_files}
    threads = ThreadPoolExecutor(1, "pilotlight-tokenizer")
    try:
        building = threads.submit(build_prompt_parts, manifest, contents)
        compiling = threads.submit(lambda: build_compiler(spec, building.result().tokenizer))
        with open_model_files(store, manifest) as path, malloc.return_freed_memory():
            native = open_decoder_session(path, memory_mb)
        session = build_session(lambda: native, native)
        check_decoder_graph(manifest, session)
        parts = building.result()
    finally:
        threads.shutdown(wait=False)
    model = LanguageModel(
        CausalModel(native, spec, GENERATING),
        parts.tokenizer,
        name=manifest.name,
        chat_template=parts.chat_template,
        prefix_cache_bytes=cache_bytes,
        count_free_bytes=DATA_LIMIT.count_usable_bytes,
        build_compiler=compiling.result,
    )
    return OpenedGraph(session, model)


def build_compiler(spec: DecoderSpec, tokenizer: TextTokenizer) -> "ConstraintCompiler":
    """Build what compiles constraints; half a second for 50,000 tokens."""
    from pilotlight.generation.constraints import ConstraintCompiler  # loads llguidance, in a layer of its own

    return ConstraintCompiler(tokenizer.json_document, spec.end_tokens, spec.vocabulary_size)


def get_decoder(manifest: Manifest) -> DecoderSpec:
    """Return the decoder's description; `ModelRefusedError` if the version is no language model."""
    if manifest.decoder is None:
        raise ModelRefusedError(f"{manifest.name}:{manifest.version} is a model for {manifest.task}, without decoder.")
    return manifest.decoder


def build_prompt_parts(manifest: Manifest, contents: dict[str, bytes]) -> PromptParts:
    """Build tokenizer and chat template from their files; `ModelRefusedError` if one of them is none."""
    try:
        return PromptParts(build_tokenizer(manifest, contents), build_chat_template(get_decoder(manifest), contents))
    except (ModelRefusedError, InvalidInputError, UnicodeDecodeError) as exc:
        raise ModelRefusedError(
            f"{manifest.name}:{manifest.version} is refused: {format_cause(exc)}; publish the model again as a new "
            "version."
        ) from exc


def build_tokenizer(manifest: Manifest, contents: dict[str, bytes]) -> TextTokenizer:
    """Build the tokenizer; `ModelRefusedError` if it has tokens for which the graph has no logits."""
    path, columns = str(manifest.tokenizer), get_decoder(manifest).vocabulary_size
    tokenizer = TextTokenizer(contents[path], path)
    if tokenizer.vocabulary_size > columns:
        raise ModelRefusedError(
            f"{path} has {tokenizer.vocabulary_size:,} tokens, and the graph has logits for {columns:,}"
        )
    return tokenizer


def build_chat_template(spec: DecoderSpec, contents: dict[str, bytes]) -> "ChatTemplate | None":
    """Build the chat template, if the model has one."""
    if spec.chat_template is None:
        return None
    from pilotlight.generation.chat_template import ChatTemplate  # loads Jinja, in a layer of its own

    return ChatTemplate(contents[spec.chat_template].decode(), spec.special_tokens)


def check_decoder_graph(manifest: Manifest, session: Session) -> None:
    """Refuse a graph whose tensors are not those of `contracts.decoder`."""
    spec = get_decoder(manifest)
    inputs, outputs = list_inputs(spec), list_outputs(spec)
    wrong = [f"the input {spec.name!r} is unknown" for spec in session.inputs if spec.name not in inputs]
    for kind, expected, actual in (("input", inputs, session.inputs), ("output", outputs, session.outputs)):
        forms = {each.name: (each.datatype, tuple(each.v2_shape)) for each in actual}
        wrong += [
            f"the {kind} {name!r} is {format_form(forms.get(name))}, not {format_form(form)}"
            for name, form in expected.items()
            if not is_form(forms.get(name), form)
        ]
    if wrong:
        raise ModelRefusedError(
            f"{manifest.name}:{manifest.version} is refused: {'; '.join(wrong[:3])}; publish the model again as a new "
            "version."
        )


def list_inputs(spec: DecoderSpec) -> dict[str, TensorForm]:
    """List the inputs of a decoder's graph."""
    cache: TensorForm = ("FP32", (None, spec.kv_heads, None, spec.head_size))
    return {
        INPUT_IDS: ("INT64", (None, None)),
        SEQUENCE_LENGTHS: ("INT32", (None,)),
        TOTAL_LENGTH: ("INT32", ()),
        KEEP: ("INT64", (1,)),
        **{name: cache for layer in range(spec.layers) for name in name_cache_inputs(layer)},
    }


def list_outputs(spec: DecoderSpec) -> dict[str, TensorForm]:
    """List the outputs of a decoder's graph."""
    cache: TensorForm = ("FP32", (None, spec.kv_heads, None, spec.head_size))
    return {
        LOGITS: ("FP32", (None, None, spec.vocabulary_size)),
        **{name: cache for layer in range(spec.layers) for name in name_cache_outputs(layer)},
    }


def is_form(actual: tuple[Datatype, tuple[int, ...]] | None, expected: TensorForm) -> bool:
    """Return whether a tensor has the datatype and the sizes, as far as both are fixed."""
    if actual is None or actual[0] != expected[0] or len(actual[1]) != len(expected[1]):
        return False
    return all(size == -1 or wanted in (None, size) for size, wanted in zip(actual[1], expected[1], strict=True))


def format_form(form: tuple[Datatype, Shape] | None) -> str:
    """Format a tensor's datatype and sizes, with -1 for a free one."""
    return "missing" if form is None else f"{form[0]} {[-1 if size is None else size for size in form[1]]}"
