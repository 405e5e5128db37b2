"""Language models opened from a registry: their parts, their swaps, and what is refused and why."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from pilotlight.contracts.manifest import ManifestDraft, Variant
from pilotlight.contracts.names import CHAMPION, ModelReference
from pilotlight.errors import InvalidInputError, LoadingError, ModelRefusedError, OutOfMemoryError, TooLargeError
from pilotlight.generation.language_model import LanguageModel
from pilotlight.generation.request import GenerationRequest, SamplingOptions, TextDelta
from pilotlight.registry import alias_updates
from pilotlight.registry.registry import Registry
from pilotlight.runtime import model_loader
from pilotlight.runtime.environment_memory import DATA_LIMIT
from pilotlight.runtime.language_model_loading import GENERATING
from pilotlight.runtime.model_cache import LoadedModel, ModelCache
from pilotlight.runtime.model_manager import ModelManager
from tests import fakes
from tests.language_model_versions import INPUTS, OUTPUTS, SCRIPT, describe_scripted, publish_scripted
from tests.scripted_model import Part, ScriptedModel

BUDGET = 100_000_000
CHAT = ModelReference("chat")


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def create_manager(registry: Registry, *, generates_text: bool = True, clock: Clock | None = None) -> ModelManager:
    return ModelManager(
        registry,
        ModelCache(BUDGET, 128_000),
        memory_mb=1769,
        alias_seconds=1.0,
        clock=clock or Clock(),
        cache_bytes=BUDGET if generates_text else None,
    )


def get_engine(model: LoadedModel) -> LanguageModel:
    assert model.language_model is not None
    return model.language_model


def write_text(language_model: LanguageModel, prompt: str = "Where?") -> str:
    request = GenerationRequest(
        prompt=tuple(language_model.tokenizer.encode(prompt)), max_tokens=20, sampling=SamplingOptions(temperature=0.0)
    )
    events = list(language_model.generate(request))
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_its_requests_are_bounded_by_the_memory_of_the_process(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_scripted(registry)
    monkeypatch.setattr(DATA_LIMIT, "count_usable_bytes", lambda: 1_000_000)
    model = get_engine(create_manager(registry).get_model(CHAT))
    with pytest.raises(TooLargeError, match="1 MB are left"):
        write_text(model)


def test_a_run_without_memory_is_the_requests_matter_and_other_failures_are_the_versions() -> None:
    with pytest.raises(OutOfMemoryError, match=r"no memory for it .*; send less at once"), GENERATING:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 4096")
    with pytest.raises(ModelRefusedError, match="graph failed: a node is wrong"), GENERATING:
        raise RuntimeError("a node is wrong")


def test_a_version_is_opened_with_its_tokenizer_and_its_template(registry: Registry) -> None:
    publish_scripted(registry)
    model = create_manager(registry).get_model(CHAT)
    assert write_text(get_engine(model)) == "Paris is the capital."
    template = get_engine(model).chat_template
    assert template is not None
    assert template.render([{"role": "user", "content": "Hi"}]).endswith("<|im_start|>assistant\n")
    assert model.size_bytes >= model.manifest.served_bytes


def test_constraints_are_compiled_for_its_tokens(registry: Registry) -> None:
    publish_scripted(registry)
    engine = get_engine(create_manager(registry).get_model(CHAT))
    constraint = engine.constraint_compiler.compile_choices(["Paris"])()
    allowed = constraint.compute_mask()
    assert allowed[ord("P")]
    assert not allowed[ord("L")]
    assert engine.constraint_compiler is engine.constraint_compiler


def test_a_version_without_a_template_has_none(registry: Registry) -> None:
    scripted = ScriptedModel.build(SCRIPT, chat_template=None)
    files = {"model.onnx": scripted.graph, "tokenizer.json": scripted.tokenizer_json.encode()}
    registry.publish_version(describe_scripted(scripted), files)
    assert get_engine(create_manager(registry).get_model(CHAT)).chat_template is None


def test_weights_in_a_file_of_their_own_are_found(registry: Registry, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from tests.tiny_decoders import write_tiny_decoder

    tiny = write_tiny_decoder(tmp_path, ("int8",))
    weights = [path.name for path in sorted(tmp_path.glob("*.data"))]
    assert weights
    draft = ManifestDraft(
        name="chat",
        task="generation",
        inputs=INPUTS,
        outputs=OUTPUTS,
        variants={"int8": Variant(tiny.graphs["int8"].name, weights=tuple(weights))},
        serve="int8",
        tokenizer=tiny.tokenizer.name,
        decoder=tiny.spec,
    )
    files = {path.name: path for path in tmp_path.iterdir()}
    registry.publish_version(draft, {name: path.read_bytes() for name, path in files.items()})
    model = create_manager(registry).get_model(CHAT)
    assert model.manifest.served_bytes > tiny.graphs["int8"].stat().st_size
    assert write_text(get_engine(model), "hello")


def test_where_no_text_is_generated_the_routes_are_told(registry: Registry) -> None:
    publish_scripted(registry)
    with pytest.raises(InvalidInputError, match=r"chat:1 is a language model, which answers at /v2/models/chat/gen"):
        create_manager(registry, generates_text=False).get_model(CHAT)


def test_other_models_are_opened_where_text_is_generated(registry: Registry) -> None:
    fakes.publish(registry)
    assert create_manager(registry).get_model(ModelReference("double")).language_model is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layers": 2}, "the input 'past_key_values.1.key' is missing, not FP32 [-1, 1, -1, 8]"),
        ({"head_size": 16}, "the input 'past_key_values.0.key' is FP32 [-1, 1, -1, 8], not FP32 [-1, 1, -1, 16]"),
        ({"vocabulary_size": 100_000}, "the output 'logits' is FP32 [-1, -1, "),
    ],
)
def test_a_graph_with_other_tensors_is_refused(registry: Registry, change: dict[str, int], told: str) -> None:
    spec = replace(ScriptedModel.build(SCRIPT).spec, **change)
    publish_scripted(registry, fields={"decoder": spec})
    with pytest.raises(ModelRefusedError) as refused:
        create_manager(registry).get_model(CHAT)
    assert told in str(refused.value)


def test_a_graph_of_something_else_is_refused(registry: Registry) -> None:
    scripted = ScriptedModel.build(SCRIPT, chat_template=None)
    files = {"model.onnx": fakes.graph("double"), "tokenizer.json": scripted.tokenizer_json.encode()}
    registry.publish_version(describe_scripted(scripted), files)
    with pytest.raises(ModelRefusedError, match=r"the input 'x' is unknown; the input 'input_ids' is missing"):
        create_manager(registry).get_model(CHAT)


def test_a_tokenizer_with_more_tokens_than_logits_is_refused(registry: Registry) -> None:
    scripted = ScriptedModel.build(SCRIPT, chat_template=None)
    larger = ScriptedModel.build(SCRIPT, more_tokens=["more", "tokens"])
    files = {"model.onnx": scripted.graph, "tokenizer.json": larger.tokenizer_json.encode()}
    registry.publish_version(describe_scripted(scripted), files)
    with pytest.raises(ModelRefusedError, match=r"has 26\d tokens, and the graph has logits for 26\d;"):
        create_manager(registry).get_model(CHAT)


@pytest.mark.parametrize("broken", ["tokenizer.json", "chat_template.jinja"])
def test_a_broken_part_is_refused(registry: Registry, broken: str) -> None:
    scripted = ScriptedModel.build(SCRIPT)
    files = {
        "model.onnx": scripted.graph,
        "tokenizer.json": scripted.tokenizer_json.encode(),
        "chat_template.jinja": b"{{ messages }}",
    }
    registry.publish_version(describe_scripted(scripted), files | {broken: b"{% for"})
    with pytest.raises(ModelRefusedError, match=r"chat:1 is refused: .*(tokenizer|template)"):
        create_manager(registry).get_model(CHAT)


def move_champion(registry: Registry, version: int) -> None:
    registry.update_alias("chat", CHAMPION, lambda old: alias_updates.point_to(old, version, "ann", "test"))


def swap_to(registry: Registry, script: Sequence[Part], recorded: Sequence[Part]) -> ModelManager:
    """Open version 1, then let the champion move to another script with these records."""
    clock = Clock()
    publish_scripted(registry)
    manager = create_manager(registry, clock=clock)
    manager.get_model(CHAT)
    publish_scripted(registry, script, recorded=recorded)
    move_champion(registry, 2)
    clock.now += 2.0
    manager.get_model(CHAT)
    manager.wait_for_background()
    return manager


def test_a_hot_swap_replays_the_golden_prompts(registry: Registry) -> None:
    manager = swap_to(registry, ("Lyon", " is", "."), ("Lyon", " is", "."))
    assert write_text(get_engine(manager.get_model(CHAT))) == "Lyon is."


def test_a_version_that_answers_otherwise_does_not_replace_the_champion(registry: Registry) -> None:
    manager = swap_to(registry, ("Lyon", " is", "."), ("Paris", " is", "."))
    assert write_text(get_engine(manager.get_model(CHAT))) == "Paris is the capital."
    with pytest.raises(ModelRefusedError, match=r"is continued with 'Lyon is\.<\|im_end\|>', recorded as 'Paris is\."):
        manager.get_model(ModelReference("chat", 2))


def test_who_waits_is_told_how_far_the_fetch_is(monkeypatch: pytest.MonkeyPatch) -> None:
    store, opened = fakes.FaultyStore(), threading.Event()

    def wait(data: bytes) -> bytes:
        assert opened.wait(10)
        return data

    publish_scripted(Registry(store))
    store.bend("model.onnx", wait)
    manager = create_manager(Registry(store))
    monkeypatch.setattr(model_loader, "MIN_TOLD_BYTES", 1)
    with pytest.raises(LoadingError, match=r"is being opened, for 0 s so far, with 0 of 0 MB fetched; try again in"):
        manager.get_model(ModelReference("chat", 1), time.monotonic() + 0.3)
    opened.set()
    manager.wait_for_background()
    assert manager.get_model(ModelReference("chat", 1)).language_model is not None
