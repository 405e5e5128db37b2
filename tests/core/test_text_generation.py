"""Generation through the service: which version answers, what is measured, and how canaries of language models end."""

import gc
import json
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from pilotlight.api.model_statistics import ModelStatistics
from pilotlight.api.request_context import RequestContext
from pilotlight.contracts.alias import TOTAL_WEIGHT, AliasDocument, Canary, TrafficShare
from pilotlight.contracts.names import CHAMPION, ModelReference
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.generation.request import (
    ChoiceEnd,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    SamplingOptions,
    TextDelta,
    TokenUsage,
)
from pilotlight.registry import alias_updates
from pilotlight.registry.registry import Registry
from pilotlight.runtime.measured_generation import GenerationOutcome, MeasuredGeneration
from pilotlight.runtime.model_cache import ModelCache
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.trial_callers import TrialCaller
from pilotlight.text_generation import GenerationService, OpenedLanguageModel
from tests import fakes
from tests.language_model_versions import SCRIPT, publish_scripted
from tests.scripted_model import Part

CHAT = ModelReference("chat")
GREEDY = SamplingOptions(temperature=0.0)
HALF = TOTAL_WEIGHT // 2
OWN_CALLER = TrialCaller(identity="backend")


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeGeneration:
    """Events that take a time each on a clock; an exception among them is raised."""

    def __init__(self, clock: Clock, events: Sequence[GenerationEvent | Exception], seconds: Sequence[float]) -> None:
        self._clock = clock
        self._events = iter(zip(events, seconds, strict=True))
        self.is_closed = False
        self.usage = TokenUsage(5, 3, 2)

    def __iter__(self) -> Iterator[GenerationEvent]:
        return self

    def __next__(self) -> GenerationEvent:
        event, seconds = next(self._events)
        self._clock.now += seconds
        if isinstance(event, Exception):
            raise event
        return event

    def close(self) -> None:
        self.is_closed = True


def measure(events: Sequence[GenerationEvent | Exception], seconds: Sequence[float]) -> tuple[Any, ...]:
    clock, outcomes = Clock(), list[GenerationOutcome]()
    fake = FakeGeneration(clock, events, seconds)
    return MeasuredGeneration(lambda: fake, outcomes.append, clock), outcomes, fake, clock


DELTAS = (TextDelta(0, "a", (1,)), TextDelta(0, "bc", (2, 3)), ChoiceEnd(0, FinishReason.STOP, completion_tokens=4))


def test_only_the_engines_own_time_counts() -> None:
    generation, outcomes, _, clock = measure(DELTAS, (0.5, 0.1, 0.1))
    for _ in generation:
        clock.now += 100.0  # a client that reads slowly
    (outcome,) = outcomes
    assert outcome.first_token_seconds == pytest.approx(0.5)
    assert outcome.seconds == pytest.approx(0.7)
    assert outcome.tokens_per_second == pytest.approx(10.0)
    assert outcome.finish_reasons == (FinishReason.STOP,)
    assert (outcome.is_failure, outcome.is_cancelled) == (False, False)


def test_a_client_that_leaves_is_told_to_the_engine_and_counts_once_as_cancelled() -> None:
    generation, outcomes, fake, _ = measure(DELTAS, (0.5, 0.1, 0.1))
    next(generation)
    generation.close()
    generation.close()
    assert fake.is_closed
    assert list(generation) == []
    assert [outcome.is_cancelled for outcome in outcomes] == [True]


def test_an_error_ends_it_and_is_raised() -> None:
    generation, outcomes, _, _ = measure((DELTAS[0], ModelRefusedError("broken"), DELTAS[2]), (0.5, 0.1, 0.1))
    with pytest.raises(ModelRefusedError), generation:
        list(generation)
    (outcome,) = outcomes
    assert outcome.is_failure
    assert str(outcome.error) == "broken"


def test_what_the_request_is_to_blame_for_is_no_failure() -> None:
    generation, outcomes, _, _ = measure((InvalidInputError("too long"), DELTAS[1]), (0.5, 0.1))
    with pytest.raises(InvalidInputError):
        next(generation)
    assert not outcomes[0].is_failure


class Rig:
    """A service over a registry with scripted versions of `chat`."""

    def __init__(self, registry: Registry, scripts: Sequence[Sequence[Part]] = (SCRIPT,)) -> None:
        self.registry = registry
        for script in scripts:
            publish_scripted(registry, script)
        self.clock = Clock()
        self.manager = ModelManager(
            registry,
            ModelCache(1_000_000_000, 128_000),
            memory_mb=1769,
            alias_seconds=1.0,
            clock=self.clock,
            cache_bytes=1_000_000,
        )
        self.statistics = ModelStatistics()
        self.slot = 0
        self.service = GenerationService(self.manager, self.statistics, draw=lambda: self.slot)

    def update(self, change: Any) -> AliasDocument:  # noqa: ANN401 - a function of the document
        self.registry.update_alias("chat", CHAMPION, change)
        self.manager.get_model(CHAT)
        self.clock.now += 2.0
        self.manager.get_model(CHAT)
        self.manager.wait_for_background()
        return self.registry.load_alias("chat", CHAMPION)

    def write(self, **request: Any) -> tuple[int, str]:  # noqa: ANN401 - fields of the request
        """Answer as an endpoint does; return the version and the text."""
        return self.service.answer(CHAT, RequestContext(), OWN_CALLER, lambda opened: write(opened, **request))


def write(opened: OpenedLanguageModel, **fields: Any) -> tuple[int, str]:  # noqa: ANN401 - fields of the request
    prompt = tuple(opened.language_model.tokenizer.encode("Where?"))
    described: dict[str, Any] = {"prompt": prompt, "max_tokens": 20, "sampling": GREEDY} | fields
    events = list(opened.generate(GenerationRequest(**described)))
    return opened.key[1], "".join(event.text for event in events if isinstance(event, TextDelta))


def test_a_request_is_answered_and_counted(registry: Registry) -> None:
    rig, context = Rig(registry), RequestContext()
    opened = rig.service.open_language_model(CHAT, context)
    assert write(opened) == (1, "Paris is the capital.")
    assert (context.model, context.version, context.cold) == ("chat", 1, True)
    (entry,) = rig.statistics.build_document([("chat", 1)], {})["model_stats"]
    assert entry["inference_stats"]["success"]["count"] == 1
    counted = entry["generation_stats"]
    assert counted["first_token"]["count"] == 1
    assert (counted["prompt_tokens"], counted["completion_tokens"]) == (6, 6)
    assert counted["further_tokens"]["count"] == 4
    assert counted["finish_reasons"] == {"stop": 1}


def test_a_model_that_writes_no_text_is_refused_with_its_route(registry: Registry) -> None:
    rig = Rig(registry, ())
    fakes.publish(registry)
    with pytest.raises(InvalidInputError, match=r"double:1 is a model for tensor, .* /v2/models/double/infer"):
        rig.service.open_language_model(ModelReference("double"), RequestContext())


def test_another_model_gives_back_the_keys_and_values_of_the_last_one(registry: Registry) -> None:
    rig = Rig(registry)
    publish_scripted(registry, name="other")
    rig.write()
    engine = rig.manager.get_model(CHAT).language_model
    assert engine is not None
    assert engine.cached_bytes > 0
    rig.service.open_language_model(CHAT, RequestContext())
    assert engine.cached_bytes > 0
    rig.service.open_language_model(ModelReference("other"), RequestContext())
    assert engine.cached_bytes == 0


def test_a_model_that_is_evicted_is_held_by_no_request_before(registry: Registry) -> None:
    rig = Rig(registry)
    rig.write()
    engine = weakref.ref(rig.manager.get_model(CHAT).language_model)
    assert engine() is not None
    rig.manager.model_cache.evict(("chat", 1))
    gc.collect()
    assert engine() is None
    assert rig.write() == (1, "Paris is the capital.")


def start_canary(rig: Rig, **limits: Any) -> None:  # noqa: ANN401 - fields of the canary
    canary = replace(Canary(2, "2999-01-01T00:00:00Z"), **limits)
    rig.update(lambda old: alias_updates.start_canary(old, canary, HALF, "ann", "test"))
    rig.slot = 0
    rig.write()  # opens it
    rig.manager.wait_for_background()


def test_a_canary_answers_its_share(registry: Registry) -> None:
    rig = Rig(registry, (SCRIPT, ("Lyon", ".")))
    start_canary(rig)
    assert rig.write() == (2, "Lyon.")
    rig.slot = HALF
    assert rig.write() == (1, "Paris is the capital.")


def test_a_split_answers_with_both_versions(registry: Registry) -> None:
    rig = Rig(registry, (SCRIPT, ("Lyon", ".")))
    rig.update(lambda old: alias_updates.set_traffic_split(old, (TrafficShare(2, HALF),), "ann", "test"))
    rig.slot = 0
    assert rig.write()[0] == 1  # version 2 is being opened
    rig.manager.wait_for_background()
    assert rig.write() == (2, "Lyon.")


def test_a_canary_that_fails_is_answered_for_by_the_champion_and_stopped(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(registry)
    publish_scripted(registry, fail_after=20, script=[*"a canary whose graph fails behind its golden prompts"])
    start_canary(rig)
    answers = {rig.write(max_tokens=40) for _ in range(10)}
    assert answers == {(1, "Paris is the capital.")}
    stopped = [line for line in capsys.readouterr().out.splitlines() if '"CanaryStopped":1' in line]
    assert len(stopped) == 1
    assert '"kind":"failures"' in stopped[0]


def test_a_stream_that_fails_midway_counts_against_the_canary(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(registry)
    publish_scripted(registry, fail_after=20, script=[*"a canary whose graph fails behind its golden prompts"])
    start_canary(rig)

    def stream(opened: OpenedLanguageModel) -> MeasuredGeneration:
        prompt = tuple(opened.language_model.tokenizer.encode("Where?"))
        generation = opened.generate(GenerationRequest(prompt=prompt, max_tokens=40))
        next(generation)
        return generation

    for _ in range(10):
        generation = rig.service.answer(CHAT, RequestContext(), OWN_CALLER, stream)
        try:
            list(generation)
        except ModelRefusedError:
            continue
    assert '"CanaryStopped":1' in capsys.readouterr().out


def test_a_request_that_both_versions_refuse_stops_no_canary(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(registry, (SCRIPT, ("Lyon", ".")))
    start_canary(rig)
    for _ in range(20):
        with pytest.raises(InvalidInputError):
            rig.write(prompt=(1,) * 600)
    assert "CanaryStopped" not in capsys.readouterr().out


def test_a_canary_that_ends_its_answers_otherwise_is_stopped(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(registry, (SCRIPT, [*"it never comes to its end, and talks and talks and talks"]))
    start_canary(rig, min_requests=5)
    for number in range(600):
        rig.slot = HALF * (number % 2)
        rig.write()
    lines = [line for line in capsys.readouterr().out.splitlines() if '"CanaryStopped":1' in line]
    assert len(lines) == 1
    assert '"kind":"drift"' in lines[0]


def start_shadow(rig: Rig) -> None:
    rig.update(lambda old: alias_updates.set_shadow(old, TrafficShare(2, TOTAL_WEIGHT), "ann", "test"))
    rig.slot = TOTAL_WEIGHT - 1
    rig.write()  # opens it
    rig.service.wait_for_shadow()
    rig.manager.wait_for_background()


@pytest.mark.parametrize(
    ("script", "fields", "counted"),
    [
        (SCRIPT, {}, "ShadowAgreed"),
        (("Lyon", "."), {}, "ShadowDiffered"),
        (("Lyon", "."), {"sampling": SamplingOptions(seed=1)}, "ShadowAnswered"),
    ],
)
def test_a_shadow_writes_copies_that_are_only_counted(
    registry: Registry,
    capsys: pytest.CaptureFixture[str],
    script: Sequence[Part],
    fields: dict[str, Any],
    counted: str,
) -> None:
    rig = Rig(registry, (SCRIPT, script))
    start_shadow(rig)
    assert rig.write(**fields) == (1, "Paris is the capital.")
    rig.service.wait_for_shadow()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if '"Shadow' in line]
    told = json.loads(line)
    assert told[counted] == 1
    assert told["version"] == 2
    assert told["first_token_ms"] > 0
    assert told["active_finish_reasons"] == ["stop"]


def test_a_shadow_that_fails_is_counted_and_harms_nobody(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(registry)
    publish_scripted(registry, fail_after=20, script=[*"a shadow whose graph fails behind its golden prompts"])
    start_shadow(rig)
    assert rig.write(max_tokens=40) == (1, "Paris is the capital.")
    rig.service.wait_for_shadow()
    assert '"ShadowFailed":1' in capsys.readouterr().out
