"""The scripted model says its script, whatever the prompt and whatever was said before."""

import pytest

from pilotlight.errors import InvalidInputError
from pilotlight.generation.language_model import LanguageModel
from pilotlight.generation.request import ChoiceEnd, FinishReason, GenerationRequest, SamplingOptions, TextDelta
from tests.scripted_model import ScriptedModel

GREEDY = SamplingOptions(temperature=0.0)


def say(language_model: LanguageModel, prompt: str, max_tokens: int = 50) -> str:
    request = GenerationRequest(
        prompt=tuple(language_model.tokenizer.encode(prompt)), max_tokens=max_tokens, sampling=GREEDY
    )
    return "".join(event.text for event in language_model.generate(request) if isinstance(event, TextDelta))


@pytest.mark.parametrize("prompt", ["a", "ab", "Tell me more", "x" * 300])
def test_it_says_its_script_after_every_prompt(prompt: str) -> None:
    language_model = ScriptedModel.build(["Hello", ", ", "world"]).open()
    assert [say(language_model, prompt) for _ in range(3)] == ["Hello, world"] * 3


def test_it_says_its_script_again_in_the_next_turn() -> None:
    language_model = ScriptedModel.build(["a", "b", "c"]).open()
    first = say(language_model, "first turn ")
    assert say(language_model, f"first turn {first} second turn") == "abc"


def test_a_script_that_begins_as_the_prompt_ends_is_said_whole() -> None:
    language_model = ScriptedModel.build(["a", "a", "a"]).open()
    assert say(language_model, "aaaaaa") == "aaa"


def test_it_fails_behind_the_tokens_that_it_may_say() -> None:
    language_model = ScriptedModel.build(["a", "b", "c"], fail_after=2).open()
    prompt = tuple(language_model.tokenizer.encode("prompt"))
    generation = language_model.generate(GenerationRequest(prompt=prompt, max_tokens=9, sampling=GREEDY))
    assert [next(generation), next(generation)] == [TextDelta(0, "a", (97,)), TextDelta(0, "b", (98,))]
    with pytest.raises(InvalidInputError, match="The language model refused the tokens"):
        next(generation)
    assert say(language_model, "prompt", max_tokens=1) == "a"


def test_it_ends_by_its_end_token() -> None:
    language_model = ScriptedModel.build(["a"]).open()
    prompt = tuple(language_model.tokenizer.encode("prompt"))
    events = list(language_model.generate(GenerationRequest(prompt=prompt, max_tokens=9)))
    assert events[-1] == ChoiceEnd(0, FinishReason.STOP, None, 2)
