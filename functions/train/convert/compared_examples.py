"""Examples on which variants are compared: the publisher's, the origin's, or made up; judged if answers are known."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from functions.train.convert.evaluation_data import ExampleSet
from functions.train.convert.right_answers import RightAnswers
from functions.train.data import Array
from functions.train.evaluation.agreement import OutputAgreement, measure_agreements
from functions.train.evaluation.score import Score
from pilotlight.contracts.manifest import Precision
from pilotlight.runtime import golden_recorder
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.scored_output import choose_scored_output, to_scores
from pilotlight.runtime.session import Session

MADE_UP_SEEDS = 16  # of which each gives three examples; the first is that of the golden requests
MADE_UP_SECONDS = 20.0  # for making them up, after which there are fewer


@dataclass(frozen=True, eq=False)
class ComparedExamples:
    """Examples that both variants answer."""

    source: str  # in a sentence: "evaluation examples"
    examples: ExampleSet | None = None
    feeds: Sequence[Feeds] = ()  # requests, in place of examples
    answers: RightAnswers | None = None

    def __len__(self) -> int:
        if self.examples is not None:
            return len(self.examples)
        return sum(next(iter(feed.values())).shape[0] if has_rows(feed) else 1 for feed in self.feeds)

    def take(self, which: slice) -> "ComparedExamples":
        """Take some of them."""
        if self.examples is None:
            return ComparedExamples(self.source, feeds=self.feeds[which])
        answers = self.answers and RightAnswers(self.answers.values[which], self.answers.classes)
        return ComparedExamples(self.source, self.examples.take(which), answers=answers)

    def generate_requests(self) -> Iterator[tuple[Feeds, int]]:
        """Generate requests with all examples, and how many each has."""
        if self.examples is not None:
            yield from self.examples.layout.generate_feeds(self.examples.inputs)
        else:
            yield from ((feed, 1) for feed in self.feeds)

    def sort_answers(self, answers: Mapping[str, Array], examples: int) -> dict[str, Array]:
        """Move the examples to the front of each answer."""
        return dict(answers) if self.examples is None else self.examples.layout.sort_answers(answers, examples)

    def build_single_request(self) -> Feeds:
        """Build the request of one example, or of as few as the graph takes."""
        if self.examples is not None:
            return self.examples.layout.build_feed(self.examples.inputs, [0])
        return self.feeds[0]

    def compare(self, sessions: Mapping[Precision, Session]) -> "MeasuredVariants":
        """Run all variants side by side, without keeping more than what is judged."""
        full, small = [*sessions, None, None][:2]
        output, kept = choose_scored_output(next(iter(sessions.values()))), dict[Precision, list[Array]]()

        def generate_pairs() -> Iterator[tuple[Mapping[str, Array], Mapping[str, Array]]]:
            for feed, examples in self.generate_requests():
                found = {name: self.sort_answers(session.run(feed), examples) for name, session in sessions.items()}
                if self.answers is not None:
                    for name, values in found.items():
                        kept.setdefault(name, []).append(values[output])
                if full is not None and small is not None:
                    yield found[full], found[small]

        agreements = measure_agreements(generate_pairs())
        scores = {name: self._score(np.concatenate(parts)) for name, parts in kept.items()}
        return MeasuredVariants(agreements, scores)

    def _score(self, outputs: Array) -> Score:
        from functions.train.evaluation.metrics import score_outputs  # imports torch

        answers = self.answers
        assert answers is not None  # noqa: S101 - outputs are kept only then
        if not answers.classes:
            return score_outputs(outputs.astype(np.float32).reshape(-1, 1), answers.values, ())
        scores, classes = to_scores(outputs), answers.classes
        if scores.shape[-1] < len(classes):  # an ArgMax inside, that did not give the last ones
            missing = [(0, 0)] * (scores.ndim - 1) + [(0, len(classes) - scores.shape[-1])]
            scores = np.pad(scores, missing)
        classes = (*classes, *map(str, range(len(classes), scores.shape[-1])))
        return score_outputs(
            scores.astype(np.float32).reshape(-1, scores.shape[-1]), answers.values.reshape(-1), classes
        )


@dataclass(frozen=True)
class MeasuredVariants:
    """How far the smaller variant agrees with fp32, and the scores of both if answers are known."""

    agreements: tuple[OutputAgreement, ...]
    scores: dict[Precision, Score]


def has_rows(feed: Feeds) -> bool:
    """Return whether a request has a first dimension to count."""
    return bool(feed) and next(iter(feed.values())).ndim > 0


def make_up_requests(session: Session, given: Sequence[Feeds]) -> tuple[Feeds, ...]:
    """Make up more requests beside those that are given; what is the same is kept once, as made-up texts are."""
    made, end = list(given), time.monotonic() + MADE_UP_SECONDS
    for seed in range(1, MADE_UP_SEEDS):
        if time.monotonic() > end:
            break
        made += golden_recorder.generate_feeds(session, seed)
    return tuple({describe_values(feed): feed for feed in made}.values())


def describe_values(feed: Feeds) -> tuple[object, ...]:
    """Describe a request by what it holds, as a key."""
    return tuple(
        (name, values.shape, tuple(values.flat) if values.dtype == object else sha256(values.tobytes()).digest())
        for name, values in feed.items()
    )
