"""Golden prompts of a language model: recorded when it is published, replayed at the gate, a hot swap and a check.

Greedy text may differ from CPU to CPU: integer kernels for AVX2, VNNI and Arm add in another order, and activations
quantized to 8 bits may round to the next step. With onnxruntime 1.32 such differences move a logit by 0.17 on average.
So an answer is recorded up to the first step at which two tokens are closer than `MIN_MARGIN`, and a prompt whose
answer is too short then is left out; a wrong file, tokenizer or kernel moves logits by far more.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from pilotlight.contracts.manifest import Precision
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.generation.prompt_encoding import encode_prompt
from pilotlight.generation.request import GenerationRequest, SamplingOptions, ScoredToken, TextDelta
from pilotlight.runtime.golden import GoldenDocument, GoldenPrompt

if TYPE_CHECKING:
    from pilotlight.generation.language_model import LanguageModel

MIN_MARGIN = 1.0  # nats between the likeliest token and the next: six times the mean difference of two kernels' logits
MAX_TOKENS = 12  # of each answer; a replay runs one step for each, and a large model's takes a tenth of a second
MIN_TOKENS = 2  # of an answer that is recorded; one token says little
ENOUGH_TOKENS = 16  # of all answers; then no other prompt is asked
GREEDY = SamplingOptions(temperature=0.0)
QUESTIONS = (
    "What is the capital of France?",
    "Count from one to ten.",
    "Repeat these words and say nothing else: the quick brown fox jumps over the lazy dog",
    "Write the days of the week in their order.",
    "Write the letters of the alphabet.",
    "What is two plus two?",
)
BEGINNINGS = (
    "The capital of France is",
    "1, 2, 3, 4, 5, 6, 7,",
    "Monday, Tuesday, Wednesday, Thursday,",
    "the quick brown fox jumps over the lazy dog. the quick brown fox jumps over the",
    "a b c d e f g h",
    "Once upon a time, there was a",
)


def record_golden_prompts(
    language_model: "LanguageModel", variant: Precision, prompts: Sequence[str] = ()
) -> GoldenDocument | None:
    """Record what follows the prompts, or the default ones; None if no answer is sure enough of its tokens.

    A prompt is the whole text that the model reads, in which special tokens are written out.
    """
    recorded: list[GoldenPrompt] = []
    for text in prompts or build_default_prompts(language_model):
        prompt = record_prompt(language_model, text)
        if prompt is not None:
            recorded.append(prompt)
        if not prompts and sum(len(each.expected) for each in recorded) >= ENOUGH_TOKENS:
            break
    return GoldenDocument(schema_version=3, variant=variant, prompts=tuple(recorded)) if recorded else None


def build_default_prompts(language_model: "LanguageModel") -> list[str]:
    """Build questions by the chat template, if the model has one, else beginnings of texts."""
    template = language_model.chat_template
    if template is None:
        return list(BEGINNINGS)
    return [template.render([{"role": "user", "content": question}]) for question in QUESTIONS]


def record_prompt(language_model: "LanguageModel", text: str) -> GoldenPrompt | None:
    """Record the answer to one prompt as far as each of its tokens is sure; None if those are too few."""
    tokens = encode_prompt(language_model, text)
    scores = list(generate_scores(language_model, tokens))
    sure = [scored.chosen.token for scored in takewhile(is_sure, scores)]
    expected = tuple(cut_behind_end(sure, language_model.spec.end_tokens))
    if len(expected) < MIN_TOKENS:
        return None
    return GoldenPrompt(text, tokens, expected, language_model.tokenizer.decode(list(expected)))


def generate_scores(language_model: "LanguageModel", tokens: tuple[int, ...]) -> Iterator[ScoredToken]:
    """Generate the likeliest tokens, each with the two likeliest in its place."""
    limit = min(MAX_TOKENS, language_model.spec.context_length - len(tokens))
    if limit < 1:
        return
    request = GenerationRequest(prompt=tokens, max_tokens=limit, sampling=GREEDY, ignore_end=True, top_logprobs=2)
    generation = language_model.generate(request)
    try:
        for event in generation:
            if isinstance(event, TextDelta):
                yield from event.scores
    finally:
        generation.close()


def is_sure(scored: ScoredToken) -> bool:
    """Return whether the token is likelier than the next one by `MIN_MARGIN`."""
    first, second = scored.top
    return first.logprob - second.logprob >= MIN_MARGIN


def cut_behind_end(tokens: Sequence[int], end_tokens: Sequence[int]) -> Sequence[int]:
    """Cut an answer behind its first end token, after which a model says anything."""
    ends = [place for place, token in enumerate(tokens) if token in end_tokens]
    return tokens[: ends[0] + 1] if ends else tokens


def replay_prompts(document: GoldenDocument, language_model: "LanguageModel") -> None:
    """Continue the recorded prompts; `ModelRefusedError` if one is read or continued otherwise than was recorded."""
    for number, prompt in enumerate(document.prompts, 1):
        replay_prompt(number, prompt, language_model)


def replay_prompt(number: int, prompt: GoldenPrompt, language_model: "LanguageModel") -> None:
    """Continue one recorded prompt, and compare the tokens."""
    tokenizer = language_model.tokenizer
    if encode_prompt(language_model, prompt.text) != prompt.tokens:
        raise ModelRefusedError(
            f"Golden prompt {number}, {prompt.text!r}, is split into other tokens than when it was recorded; is the "
            "tokenizer that of the model?"
        )
    request = GenerationRequest(prompt=prompt.tokens, max_tokens=len(prompt.expected), sampling=GREEDY, ignore_end=True)
    try:
        actual = collect_tokens(language_model, request)
    except InvalidInputError as exc:
        raise ModelRefusedError(f"Golden prompt {number}, {prompt.text!r}, is refused: {exc}") from exc
    if actual != prompt.expected:
        raise ModelRefusedError(
            f"Golden prompt {number}, {prompt.text!r}, is continued with {tokenizer.decode(list(actual))!r}, recorded "
            f"as {prompt.expected_text!r}."
        )


def collect_tokens(language_model: "LanguageModel", request: GenerationRequest) -> tuple[int, ...]:
    """Generate, and return the tokens of the first choice."""
    generation = language_model.generate(request)
    try:
        return tuple(token for event in generation if isinstance(event, TextDelta) for token in event.tokens)
    finally:
        generation.close()
