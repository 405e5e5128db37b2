"""Score a decoder's graph on a text: the probability of each token after those before it, in windows."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import numpy.typing as npt

from functions.train.language_models.decoder_config import FloatArray
from pilotlight.contracts import decoder as tensors
from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.contracts.manifest import EvaluationSet
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.session import Session

DEFAULT_CHARACTERS = 20_000  # of Python's help, which every installation has
WINDOW = 512  # tokens that are scored together
MAX_WINDOWS = 40  # of a longer text, the first ones
ROWS_AT_ONCE = 128  # tokens whose logits are in memory at a time
Report = Callable[[str], None]


@dataclass(frozen=True)
class EvaluationText:
    """A text that variants are compared on, and how reports name it."""

    name: str
    text: str


@dataclass(frozen=True)
class TokenScores:
    """The loss of each token in nats, and the token that the decoder found likeliest in its place."""

    losses: npt.NDArray[np.float64]
    likeliest: npt.NDArray[np.int64]

    @property
    def loss(self) -> float:
        """The mean loss in nats."""
        return float(self.losses.mean())

    @property
    def perplexity(self) -> float:
        """E to the power of the mean loss."""
        return float(np.exp(self.loss))

    def compute_agreement(self, other: "TokenScores") -> float:
        """Compute the share of places in which both find the same token likeliest."""
        return float((self.likeliest == other.likeliest).mean())


def read_evaluation_text(file: Path | None) -> EvaluationText:
    """Read the publisher's text, or take the beginning of Python's help; `InvalidInputError` if it cannot be read."""
    if file is None:
        text = "\n".join(topics.values())[:DEFAULT_CHARACTERS]
        return EvaluationText(f"the first {DEFAULT_CHARACTERS:,} characters of pydoc_data.topics", text)
    try:
        return EvaluationText(file.name, file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"Cannot read {file} as a text in UTF-8: {exc}.") from exc


def split_windows(tokens: list[int], spec: DecoderSpec) -> list[list[int]]:
    """Split a text's tokens into whole windows, each behind the begin token if the decoder has one.

    A text shorter than one window is one. Raises `InvalidInputError` if there is nothing to predict.
    """
    begin = [] if spec.begin_token is None else [spec.begin_token]
    size = min(WINDOW, spec.context_length) - len(begin)
    starts = range(0, max(len(tokens) - size, 0) + 1, size)[:MAX_WINDOWS]
    windows = [begin + tokens[start : start + size] for start in starts]
    if len(windows[0]) < 2:
        raise InvalidInputError("The text to evaluate on has fewer than two tokens; bring a longer one.")
    return windows


def describe_evaluation(windows: list[list[int]]) -> EvaluationSet:
    """Describe what is scored: the hash of its tokens, and how many are predicted."""
    content = np.concatenate([np.array(window, np.int64) for window in windows]).tobytes()
    return EvaluationSet(hashlib.sha256(content).hexdigest(), sum(len(window) - 1 for window in windows))


def score_windows(session: Session, spec: DecoderSpec, windows: list[list[int]], report: Report) -> TokenScores:
    """Score every token of every window but its first."""
    losses, likeliest = list[Array](), list[Array]()
    for place, window in enumerate(windows, 1):
        report(f"window {place} of {len(windows)}")
        targets = np.array(window[1:])
        for start, logits in iterate_logits(session, spec, window[:-1]):
            expected = targets[start : start + len(logits)]
            losses.append(compute_losses(logits, expected))
            likeliest.append(logits.argmax(axis=-1))
    return TokenScores(np.concatenate(losses), np.concatenate(likeliest))


def compute_losses(logits: FloatArray, targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Compute -ln softmax(logits)[target] of each row, in fp64."""
    greatest = logits.max(axis=-1, keepdims=True)
    sums = np.exp(logits - greatest).sum(axis=-1, dtype=np.float64)
    chosen = np.take_along_axis(logits, targets[:, None], axis=-1)
    losses: npt.NDArray[np.float64] = np.log(sums) - (chosen - greatest)[:, 0]
    return losses


def iterate_logits(session: Session, spec: DecoderSpec, tokens: list[int]) -> Iterator[tuple[int, FloatArray]]:
    """Iterate over the logits of a sequence, (rows, vocabulary), some rows at a time, with the place of the first."""
    cache = create_cache(spec, len(tokens))
    for start in range(0, len(tokens), ROWS_AT_ONCE):
        part = tokens[start : start + ROWS_AT_ONCE]
        answer = session.run(build_feed(part, start + len(part), len(part)) | cache)
        cache = {
            past: answer[present]
            for layer in range(spec.layers)
            for past, present in zip(tensors.name_cache_inputs(layer), tensors.name_cache_outputs(layer), strict=True)
        }
        yield start, answer[tensors.LOGITS][0]


def create_cache(spec: DecoderSpec, capacity: int) -> dict[str, Array]:
    """Create the empty cache of one sequence."""
    shape = (1, spec.kv_heads, capacity, spec.head_size)
    names = (name for layer in range(spec.layers) for name in tensors.name_cache_inputs(layer))
    return {name: np.zeros(shape, np.float32) for name in names}


def build_feed(tokens: list[int], length: int, keep: int) -> dict[str, Array]:
    """Build the inputs beside the cache, for new tokens of one sequence that is then `length` long."""
    return {
        tensors.INPUT_IDS: np.array([tokens], np.int64),
        tensors.SEQUENCE_LENGTHS: np.array([length - 1], np.int32),
        tensors.TOTAL_LENGTH: np.array(length, np.int32),
        tensors.KEEP: np.array([keep], np.int64),
    }
