"""The engine on scripted models: texts, ends, and who leaves early. The rows are those of bug reports elsewhere."""

import gc
import threading
import time
from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
import pytest

from pilotlight.errors import ContextLengthError, DeadlineError, InvalidInputError, LimitExceededError
from pilotlight.generation.language_model import LanguageModel
from pilotlight.generation.request import (
    BoolArray,
    ChoiceEnd,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    SamplingOptions,
    TextDelta,
    TokenUsage,
)
from tests.scripted_model import Part, ScriptedModel

GREEDY = SamplingOptions(temperature=0.0)
PROMPT = "Say something, please."
EMOJI = "😀".encode()


def build_request(model: LanguageModel, prompt: str = PROMPT, **fields: object) -> GenerationRequest:
    given = {"max_tokens": 50, "sampling": GREEDY, **fields}
    return GenerationRequest(prompt=tuple(model.tokenizer.encode(prompt)), **given)  # type: ignore[arg-type]  # any of its fields


def run(model: LanguageModel, prompt: str = PROMPT, **fields: object) -> list[GenerationEvent]:
    return list(model.generate(build_request(model, prompt, **fields)))


def join(events: Iterable[GenerationEvent], choice: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and event.choice == choice)


def get_ends(events: Iterable[GenerationEvent]) -> dict[int, ChoiceEnd]:
    ends = [event for event in events if isinstance(event, ChoiceEnd)]
    assert len({end.choice for end in ends}) == len(ends)
    return {end.choice: end for end in ends}


class TestCharacters:
    @pytest.mark.parametrize(
        ("max_tokens", "text"), [(1, "h"), (2, "hi"), (3, "hi"), (4, "hi"), (5, "hi"), (6, "hi😀")]
    )
    def test_only_whole_ones_come_out(self, max_tokens: int, text: str) -> None:
        model = ScriptedModel.build(["h", "i", *(bytes([byte]) for byte in EMOJI), "!"]).open()
        events = run(model, max_tokens=max_tokens)
        assert join(events) == text
        assert get_ends(events)[0] == ChoiceEnd(0, FinishReason.LENGTH, None, max_tokens)
        tokens = [token for event in events if isinstance(event, TextDelta) for token in event.tokens]
        assert len(tokens) == max_tokens

    def test_bytes_that_are_no_character_are_dropped(self) -> None:
        assert join(run(ScriptedModel.build(["a", b"\xff", b"\xe2", "b"]).open())) == "ab"

    def test_special_tokens_are_no_text(self) -> None:
        scripted = ScriptedModel.build(["a"])
        start = scripted.ids["<|im_start|>"]
        events = run(ScriptedModel.build(["a", start, "b"]).open())
        assert join(events) == "ab"


class TestStopStrings:
    def test_nothing_of_one_over_several_tokens_is_sent(self) -> None:
        model = ScriptedModel.build(["DEF", "G", "HI", "J", "K"]).open()
        events = run(model, "Here is the English alphabet: ABC", stop_strings=("DEFGHIJ",))
        assert events == [ChoiceEnd(0, FinishReason.STOP, "DEFGHIJ", 4)]

    def test_what_stands_before_it_in_the_last_token_is_sent(self) -> None:
        events = run(ScriptedModel.build(["Yes", "?\n"]).open(), stop_strings=("\n",))
        assert join(events) == "Yes?"
        assert get_ends(events)[0] == ChoiceEnd(0, FinishReason.STOP, "\n", 2)

    @pytest.mark.parametrize("max_tokens", [3, 50])
    def test_a_beginning_that_never_completes_is_sent_at_the_end(self, max_tokens: int) -> None:
        events = run(
            ScriptedModel.build(["Yes", "\n", "User"]).open(), stop_strings=("\nUser:",), max_tokens=max_tokens
        )
        assert join(events) == "Yes\nUser"
        assert get_ends(events)[0].reason == (FinishReason.LENGTH if max_tokens == 3 else FinishReason.STOP)

    def test_it_is_part_of_the_text_if_asked_for(self) -> None:
        events = run(ScriptedModel.build(["a", "b.", "c"]).open(), stop_strings=(".",), include_stop_string=True)
        assert join(events) == "ab."

    def test_before_the_least_number_of_tokens_it_is_ordinary_text(self) -> None:
        model = ScriptedModel.build(["a", ".", "b", "."]).open()
        assert join(run(model, stop_strings=(".",), min_tokens=3)) == "a.b"


class TestEnds:
    def test_an_end_token_on_the_last_permitted_one_is_an_end(self) -> None:
        model = ScriptedModel.build(["a", "b"]).open()
        assert get_ends(run(model, max_tokens=3))[0] == ChoiceEnd(0, FinishReason.STOP, None, 3)
        assert get_ends(run(model, max_tokens=2))[0] == ChoiceEnd(0, FinishReason.LENGTH, None, 2)

    def test_a_stop_token_is_named_and_is_no_text(self) -> None:
        model = ScriptedModel.build(["a", "b", "c"]).open()
        events = run(model, stop_tokens=(ord("b"),))
        assert join(events) == "a"
        assert get_ends(events)[0] == ChoiceEnd(0, FinishReason.STOP, ord("b"), 2)

    def test_the_context_ends_an_answer(self) -> None:
        model = ScriptedModel.build(["a"] * 100, context_length=64).open()
        events = run(model, "x" * 60)
        assert join(events) == "aaaa"
        assert get_ends(events)[0] == ChoiceEnd(0, FinishReason.LENGTH, None, 4)

    @pytest.mark.parametrize("choices", [1, 3])
    def test_the_deadline_ends_all_choices(self, choices: int) -> None:
        model = ScriptedModel.build(["a"] * 100).open()
        sampling = SamplingOptions(seed=1)
        events = run(model, deadline=time.monotonic(), choices=choices, sampling=sampling)
        assert events == [ChoiceEnd(choice, FinishReason.LENGTH) for choice in range(choices)]

    @pytest.mark.parametrize("lookup", [False, True])
    def test_the_deadline_ends_an_answer_that_has_begun(self, monkeypatch: pytest.MonkeyPatch, lookup: bool) -> None:
        model = ScriptedModel.build(["a"] * 100).open()
        generation = model.generate(build_request(model, deadline=1e12, prompt_lookup=lookup))
        events = [next(generation), next(generation)]
        monkeypatch.setattr(time, "monotonic", lambda: 1e12)
        events += generation
        end = get_ends(events)[0]
        assert end.reason == FinishReason.LENGTH
        assert end.completion_tokens == len(join(events)) == generation.usage.completion_tokens

    def test_end_tokens_are_ordinary_if_they_are_to_be_ignored(self) -> None:
        events = run(ScriptedModel.build(["a"]).open(), ignore_end=True, max_tokens=5)
        assert get_ends(events)[0] == ChoiceEnd(0, FinishReason.LENGTH, None, 5)

    def test_there_is_no_end_before_the_least_number_of_tokens(self) -> None:
        events = run(ScriptedModel.build(["a"], margin=30.0).open(), min_tokens=3, max_tokens=4)
        assert get_ends(events)[0].completion_tokens >= 4


class OnlyLetters:
    """A constraint that allows the letters a and b, then an end; three tokens at most."""

    def __init__(self, size: int, ends: Iterable[int]) -> None:
        self._mask = np.zeros(size, np.bool_)
        self._mask[[ord("a"), ord("b")]] = True
        self._ends = list(ends)
        self.tokens: list[int] = []

    @property
    def is_complete(self) -> bool:
        return len(self.tokens) == 3

    def compute_mask(self) -> BoolArray:
        mask = self._mask.copy()
        mask[self._ends] = len(self.tokens) == 2
        return mask

    def accept(self, token: int) -> None:
        assert self.compute_mask()[token]
        self.tokens.append(token)


class TestConstraints:
    @pytest.mark.parametrize("options", [GREEDY, SamplingOptions(seed=1), SamplingOptions(seed=1, top_p=0.5)])
    @pytest.mark.parametrize("lookup", [False, True])
    def test_each_choice_holds_its_own(self, options: SamplingOptions, lookup: bool) -> None:
        model = ScriptedModel.build(["x", "b", "y", "z"], margin=2.0).open()
        constraints: list[OnlyLetters] = []

        def create() -> OnlyLetters:
            constraints.append(OnlyLetters(model.spec.vocabulary_size, model.spec.end_tokens))
            return constraints[-1]

        events = run(model, constraint=create, choices=2, sampling=options, prompt_lookup=lookup)
        texts = [join(events, choice) for choice in range(2)]
        assert all(set(text) <= {"a", "b"} and 2 <= len(text) <= 3 for text in texts)
        assert [end.reason for end in get_ends(events).values()] == [FinishReason.STOP] * 2
        assert len(constraints) == (1 if options.temperature == 0.0 else 2)

    def test_an_end_that_alone_is_allowed_comes_before_the_least_number_of_tokens(self) -> None:
        model = ScriptedModel.build(["x"]).open()

        class Nothing(OnlyLetters):
            def compute_mask(self) -> BoolArray:
                mask = np.zeros(model.spec.vocabulary_size, np.bool_)
                mask[model.spec.end_tokens[0]] = True
                return mask

        events = run(model, constraint=lambda: Nothing(10**3, ()), min_tokens=5)
        assert events == [ChoiceEnd(0, FinishReason.STOP, None, 1)]

    def test_special_tokens_that_a_grammar_names_are_text_and_end_tokens_are_not(self) -> None:
        model = ScriptedModel.build(["x", "y"]).open()
        marked = model.constraint_compiler.compile_grammar('start: <|im_start|> "a"+')
        assert join(run(model, constraint=marked, max_tokens=4)).startswith("<|im_start|>a")
        ended = model.constraint_compiler.compile_grammar('start: "a" | "b"')
        assert join(run(model, constraint=ended, ignore_end=True)) in {"a", "b"}

    def test_one_that_fails_behind_a_draft_leaves_no_token_that_was_only_guessed(self) -> None:
        model = ScriptedModel.build(["a", "z", "b"]).open()

        class Failing(OnlyLetters):
            def compute_mask(self) -> BoolArray:
                return np.ones(model.spec.vocabulary_size, np.bool_)

            def accept(self, token: int) -> None:
                self.tokens.append(token)
                if len(self.tokens) == 2:
                    raise InvalidInputError("The grammar is too large.")

        prompt = "abcd, abcd, "  # behind which an a makes the draft "bcd,"
        with pytest.raises(InvalidInputError, match="too large"):
            run(model, prompt, constraint=lambda: Failing(10**3, ()), prompt_lookup=True)
        following = model.generate(build_request(model, prompt + "az and more"))
        list(following)
        assert following.usage.cached_tokens == len(prompt)


class TestScores:
    def test_what_two_prompts_share_is_run_once(self) -> None:
        model = ScriptedModel.build(["a"]).open()
        expected = [model.score_next(model.tokenizer.encode(PROMPT + end), [97, 98]).tolist() for end in ("12345", "6")]
        again = model.score_next(model.tokenizer.encode(PROMPT + "12345"), [97, 98]).tolist()
        assert again == expected[0] == expected[1]
        generation = model.generate(build_request(model, PROMPT + "12345"))
        list(generation)
        assert generation.usage.cached_tokens == len(PROMPT) + 1

    def test_the_deadline_ends_them(self) -> None:
        model = ScriptedModel.build(["a"]).open()
        tokens = model.tokenizer.encode(PROMPT)
        with pytest.raises(DeadlineError, match=f"before its {len(tokens)} tokens are scored"):
            model.score(tokens, time.monotonic())
        with pytest.raises(DeadlineError, match=f"before its {len(tokens)} tokens are scored"):
            model.score_next(tokens, [97], time.monotonic())
        assert len(model.score(tokens, time.monotonic() + 1000)) == len(tokens) - 1

    def test_a_chunk_that_would_end_too_late_is_not_begun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = ScriptedModel.build(["a"], context_length=2000).open()
        clock = iter([0.0, 0.0, 4.0])  # at the beginning, and before the first and the second of four chunks
        with monkeypatch.context() as patched:
            # The module's own name alone: other threads ask the clock too.
            patched.setattr("pilotlight.generation.causal_model.time", SimpleNamespace(monotonic=lambda: next(clock)))
            with pytest.raises(DeadlineError):
                model.score_next(model.tokenizer.encode("x" * 1000), [97], 7.0)
        assert join(run(model)) == "a"


class TestChoices:
    def test_greedy_ones_are_the_same_and_all_are_counted(self) -> None:
        model = ScriptedModel.build(["a", "b", "c"]).open()
        generation = model.generate(build_request(model, choices=3, max_tokens=3))
        events = list(generation)
        assert [join(events, choice) for choice in range(3)] == ["abc"] * 3
        assert get_ends(events) == {choice: ChoiceEnd(choice, FinishReason.LENGTH, None, 3) for choice in range(3)}
        assert generation.usage == TokenUsage(len(PROMPT), 9)

    def test_seeds_hold_for_all_of_them_and_differ_between_them(self) -> None:
        model = ScriptedModel.build(["a"] * 20, margin=1.0).open()

        def draw(seed: int) -> list[list[int]]:
            events = run(model, choices=3, max_tokens=20, sampling=SamplingOptions(seed=seed), ignore_end=True)
            deltas = [event for event in events if isinstance(event, TextDelta)]
            return [[token for each in deltas if each.choice == place for token in each.tokens] for place in range(3)]

        first = draw(42)
        assert len({tuple(tokens) for tokens in first}) == 3
        assert draw(42) == first
        assert draw(43)[:2] == first[1:]

    def test_one_that_ends_early_leaves_the_others_undisturbed(self) -> None:
        model = ScriptedModel.build(["a"] * 40, margin=5.0).open()
        sampling = SamplingOptions(seed=3)
        events = run(model, choices=6, max_tokens=40, sampling=sampling)
        alone = [
            run(model, max_tokens=40, sampling=SamplingOptions(seed=3 + choice), prompt="x") for choice in range(6)
        ]
        assert len({len(join(each)) for each in alone}) > 1
        assert [join(events, choice) for choice in range(6)] == [join(each) for each in alone]


class TestLogprobs:
    def test_each_token_has_its_own_and_the_likeliest_ones(self) -> None:
        model = ScriptedModel.build(["a", EMOJI[:2], EMOJI[2:]], margin=2.0).open()
        sampling = SamplingOptions(temperature=0.0, logit_bias={ord("z"): 1.0})
        events = run(model, top_logprobs=3, sampling=sampling, max_tokens=3)
        scores = [score for event in events if isinstance(event, TextDelta) for score in event.scores]
        size = model.spec.vocabulary_size
        expected = 2.0 - np.log(np.exp(2.0) + size - 1)
        assert [score.chosen.logprob for score in scores] == pytest.approx([expected] * 3)
        assert [score.chosen.bytes for score in scores] == [b"a", EMOJI[:2], EMOJI[2:]]
        assert [score.chosen.text for score in scores] == ["a", "", ""]
        assert [len(score.top) for score in scores] == [3] * 3
        assert all(score.top[0] == score.chosen for score in scores)
        deltas = [event for event in events if isinstance(event, TextDelta)]
        assert [(delta.text, len(delta.scores)) for delta in deltas] == [("a", 1), ("😀", 2)]

    def test_without_alternatives_there_is_only_the_chosen_one(self) -> None:
        events = run(ScriptedModel.build(["a"]).open(), top_logprobs=0, max_tokens=1)
        assert isinstance(events[0], TextDelta)
        assert events[0].scores[0].top == ()


class TestRefusals:
    def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers(self) -> None:
        model = ScriptedModel.build(["a"], context_length=32).open()
        with pytest.raises(ContextLengthError, match="32 tokens") as caught:
            model.generate(build_request(model, "x" * 32))
        assert (caught.value.prompt_tokens, caught.value.context_length) == (32, 32)
        assert join(run(model, "x" * 31)) == "a"

    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({"prompt": ()}, "The prompt is empty"),
            ({"prompt": (1, 10**6)}, "Token 1000000 in the prompt"),
            ({"prompt": (1, -1)}, "Token -1 in the prompt"),
            ({"stop_tokens": (999,)}, "Token 999 in stop_token_ids"),
            ({"sampling": SamplingOptions(logit_bias={-5: 1.0})}, "Token -5 in logit_bias"),
        ],
    )
    def test_tokens_that_the_model_does_not_have_are_refused(self, fields: dict[str, object], sentence: str) -> None:
        model = ScriptedModel.build(["a"]).open()
        request = GenerationRequest(**{"prompt": (1,), "max_tokens": 1, **fields})  # type: ignore[arg-type]  # any of its fields
        with pytest.raises(InvalidInputError, match=sentence):
            model.generate(request)
        assert join(run(model)) == "a"


class TestLeaving:
    def test_a_second_generation_waits_for_the_end_of_the_first(self) -> None:
        model = ScriptedModel.build(["a", "b"]).open()
        generation = model.generate(build_request(model))
        with pytest.raises(LimitExceededError, match="still answering"):
            model.generate(build_request(model))
        generation.close()
        assert join(run(model)) == "ab"

    def test_one_that_is_forgotten_frees_the_model(self) -> None:
        model = ScriptedModel.build(["a", "b"]).open()
        generation = model.generate(build_request(model))
        next(generation)
        del generation
        gc.collect()
        assert join(run(model)) == "ab"

    @pytest.mark.parametrize("choices", [1, 2])
    @pytest.mark.parametrize("tokens", [0, 1, 5])
    def test_who_leaves_stops_decoding_within_a_token(self, choices: int, tokens: int) -> None:
        model = ScriptedModel.build(["a"] * 100).open()
        asked: list[int] = []

        def is_cancelled() -> bool:
            asked.append(1)
            return len(asked) > tokens

        request = build_request(model, choices=choices, sampling=SamplingOptions(seed=1))
        generation = model.generate(request, is_cancelled)
        ends = get_ends(list(generation))
        assert {end.reason for end in ends.values()} == {FinishReason.CANCELLED}
        assert generation.usage.completion_tokens <= tokens * choices
        assert join(run(model, max_tokens=3)) == "aaa"

    @pytest.mark.parametrize("begun", [False, True])
    def test_another_thread_may_close_it(self, begun: bool) -> None:
        model = ScriptedModel.build(["a"] * 100, context_length=2000).open()
        is_running, is_closed = threading.Event(), threading.Event()

        def wait() -> bool:
            if begun == bool(events):
                is_running.set()
                is_closed.wait()
            return False

        events: list[GenerationEvent] = []
        generation = model.generate(build_request(model, "x" * 1000), wait)
        reader = threading.Thread(target=lambda: events.extend(iter(generation)))
        reader.start()
        is_running.wait()
        generation.close()
        is_closed.set()
        reader.join()
        assert len(events) <= 1
        assert not get_ends(events)
        assert join(run(model, max_tokens=2)) == "aa"

    def test_one_that_is_closed_while_its_event_is_handed_out_frees_the_model(self) -> None:
        model = ScriptedModel.build(["a", "b"]).open()
        generation = model.generate(build_request(model))
        stepping = threading.Lock()

        class ClosedMeanwhile:
            """A lock behind whose last look, but before its release, another thread closes the generation."""

            acquire, release = stepping.acquire, stepping.release

            def __enter__(self) -> None:
                stepping.acquire()

            def __exit__(self, *_: object) -> None:
                closer = threading.Thread(target=generation.close)
                closer.start()
                closer.join()
                stepping.release()

        generation._stepping = ClosedMeanwhile()  # type: ignore[assignment]  # used as a lock is
        assert list(generation) == []
        assert join(run(model)) == "ab"

    def test_one_that_was_closed_is_at_its_end(self) -> None:
        model = ScriptedModel.build(["a", "b"]).open()
        generation = model.generate(build_request(model))
        next(generation)
        generation.close()
        generation.close()
        assert list(generation) == []
        assert generation.usage.completion_tokens == 1

    def test_a_prompt_is_left_between_its_chunks_and_what_was_run_is_known(self) -> None:
        model = ScriptedModel.build(["a"], context_length=2000).open()
        answers = iter([False, True, True])
        generation = model.generate(build_request(model, "x" * 1000), lambda: next(answers))
        assert list(generation) == [ChoiceEnd(0, FinishReason.CANCELLED)]
        again = model.generate(build_request(model, "x" * 1000))
        assert join(again) == "a"
        assert again.usage.cached_tokens == 256

    def test_a_thousand_that_were_closed_leave_memory_and_threads_as_they_were(self) -> None:
        model = ScriptedModel.build(["a"] * 100).open()
        threads = threading.active_count()
        sizes = set()
        for turn in range(1000):
            generation = model.generate(build_request(model, choices=1 + turn % 2))
            for _ in range(turn % 3):
                next(generation)
            generation.close()
            sizes.add(model.cached_bytes)
        assert len(sizes - {0}) == 1
        assert threading.active_count() == threads
        assert join(run(model, max_tokens=2)) == "aa"

    def test_a_failing_graph_ends_the_stream_with_its_error_and_frees_the_model(self) -> None:
        model = ScriptedModel.build(["a", "b", "c"], fail_after=2).open()
        texts: list[GenerationEvent] = []
        with pytest.raises(InvalidInputError, match="refused the tokens"):
            texts.extend(model.generate(build_request(model)))
        assert join(texts) == "ab"
        assert join(run(model, max_tokens=2)) == "ab"


class TestOwners:
    @pytest.mark.parametrize("choices", [1, 2])
    def test_nobody_learns_what_the_prompts_of_others_say(self, choices: int) -> None:
        model = ScriptedModel.build(["a"]).open()
        for owner, known in (("acme", 0), ("zeta", 0), ("acme", len(PROMPT) - 4), ("", 0)):
            sampling = SamplingOptions(seed=1)
            generation = model.generate(build_request(model, choices=choices, sampling=sampling, cache_owner=owner))
            list(generation)
            assert generation.usage.cached_tokens == known


class TestMemory:
    def test_idle_memory_is_given_back(self) -> None:
        model = ScriptedModel.build(["a", "b"]).open()
        run(model)
        assert model.cached_bytes > 0
        model.release_cache()
        assert model.cached_bytes == 0
        assert join(run(model)) == "ab"

    def test_memory_in_use_stays(self) -> None:
        model = ScriptedModel.build(["a", "b"]).open()
        generation = model.generate(build_request(model))
        next(generation)
        model.release_cache()
        assert join(generation) == "b"


class TestBatches:
    @pytest.mark.parametrize("rows", [1, 2, 5])
    def test_all_requests_are_answered_by_their_index(self, rows: int) -> None:
        parts: list[Part] = ["a", "b", "c", "d", "e", "f"]
        model = ScriptedModel.build(parts).open()
        requests = [build_request(model, f"Prompt {place}", max_tokens=1 + place % 6) for place in range(9)]
        requests[4] = build_request(model, choices=3, sampling=SamplingOptions(seed=1), stop_strings=("d",))
        generation = model.generate_batch(requests, rows=rows)
        events = list(generation)
        texts = [join(event for index, event in events if index == place) for place in range(9)]
        assert texts == ["abcdef"[: 1 + place % 6] if place != 4 else "abc" for place in range(9)]
        ends = [get_ends(event for index, event in events if index == place) for place in range(9)]
        assert [len(each) for each in ends] == [1, 1, 1, 1, 3, 1, 1, 1, 1]
        assert [usage.completion_tokens for usage in generation.usages] == [1, 2, 3, 4, 12, 6, 1, 2, 3]

    def test_each_request_has_its_own_deadline(self) -> None:
        model = ScriptedModel.build(["a", "b"]).open()
        requests = [build_request(model), build_request(model, deadline=time.monotonic()), build_request(model)]
        events = list(model.generate_batch(requests))
        texts = [join(event for index, event in events if index == place) for place in range(3)]
        assert texts == ["ab", "", "ab"]

    def test_no_requests_are_no_events(self) -> None:
        assert list(ScriptedModel.build(["a"]).open().generate_batch([])) == []
