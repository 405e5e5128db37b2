"""The scores of a model: its outputs against the targets, and a sample of what a language model generates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.training.step import get_model_device

if TYPE_CHECKING:  # imports tokenizers
    from functions.train.data.tokenizer import Tokenizer

PROMPT_TOKENS, GENERATED_TOKENS = 16, 96  # tokens
TEMPERATURE = 0.8


@dataclass(frozen=True)
class Score:
    """The scores of a model's outputs: shares of right classes, or the distance to the right numbers."""

    loss: float  # mean cross-entropy in nats, of a text per token; of numbers, the mean squared error
    metrics: dict[str, float]  # by name; the first is what training shows as it goes
    per_class: dict[str, float]  # the recall of each class that occurs, 0 to 1

    @property
    def main_metric(self) -> tuple[str, float]:
        """The metric that training shows, by name."""
        return next(iter(self.metrics.items()))

    @property
    def accuracy(self) -> float:
        """The share of right answers, 0 to 1; of classes only."""
        return self.metrics["accuracy"]


def format_metric(metric: str, value: float) -> str:
    """Format a metric: shares in percent, all others as numbers."""
    return f"{value:.2%}" if metric.endswith("accuracy") else f"{value:.4g}"


def evaluate_outputs(outputs: Array, data: Dataset) -> Score:
    """Score a model's outputs for all of a data set."""
    if data.text:
        return score_language_model(outputs, data.targets, data.text.tokenizer.byte_lengths)
    return score_outputs(outputs, data.targets, data.classes)


def score_outputs(outputs: Array, targets: Array, classes: Sequence[str]) -> Score:
    """Score (N, classes) logits against (N,) labels; without classes (N, 1) numbers against (N, 1) right ones."""
    return score_classification(outputs, targets, classes) if classes else score_regression(outputs, targets)


def score_classification(logits: Array, labels: Array, classes: Sequence[str]) -> Score:
    """Score accuracy over all examples, the recall of each class, and its mean: the balanced accuracy."""
    right = logits.argmax(axis=1) == labels
    present = np.unique(labels)
    recall = {classes[label]: float(right[labels == label].mean()) for label in present}
    metrics = {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(list(recall.values())))}
    return Score(compute_cross_entropy(logits, labels), metrics, recall)


def score_regression(answers: Array, targets: Array) -> Score:
    """Score R2, the share of the variance that is explained, and two mean distances in the target's unit."""
    errors = answers.astype(np.float64) - targets
    squared, spread = float(np.square(errors).mean()), float(targets.astype(np.float64).var())
    r2 = 1 - squared / spread if spread else float("nan")  # where all are alike there is nothing to explain
    return Score(squared, {"r2": r2, "rmse": squared**0.5, "mae": float(np.abs(errors).mean())}, {})


def score_language_model(logits: Array, targets: Array, widths: Array) -> Score:
    """Score (N, T, tokens) logits against the (N, T) tokens that follow, which have `widths` bytes each.

    Bits per byte do not depend on the tokenizer: the loss of the whole text, over its bytes. Perplexity is exp(loss).
    """
    losses = np.stack(
        [compute_negative_log_likelihood(window, right) for window, right in zip(logits, targets, strict=True)]
    )
    loss, accuracy = float(losses.mean()), float((logits.argmax(axis=2) == targets).mean())
    bits = float(losses.sum() / np.log(2) / widths[targets].sum())
    metrics = {"accuracy": accuracy, "loss": loss, "perplexity": float(np.exp(loss)), "bits_per_byte": bits}
    return Score(loss, metrics, {})


def compute_cross_entropy(logits: Array, labels: Array) -> float:
    """Compute the mean negative log-likelihood, in nats."""
    return float(compute_negative_log_likelihood(logits, labels).mean())


def compute_negative_log_likelihood(logits: Array, labels: Array) -> Array:
    """Compute log(sum(exp(z))) - z[label] of each of N; in float64 and shifted by the maximum against overflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(labels)), labels]
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - chosen)


def sample_text(model: nn.Module, tokenizer: "Tokenizer", window: Array) -> str:
    """Sample a continuation of a window's first tokens, separated by a bar; on a CPU, a model always gives the same."""
    generator = torch.Generator().manual_seed(0)
    prompt = window[: min(PROMPT_TOKENS, len(window) // 2)].tolist()
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(GENERATED_TOKENS):
            context = torch.tensor([tokens[-len(window) :]], device=get_model_device(model))
            probabilities = torch.softmax(model.eval()(context)[0, -1].float().cpu() / TEMPERATURE, dim=0)
            tokens.append(int(torch.multinomial(probabilities, 1, generator=generator)))
    return f"{tokenizer.decode_tokens(prompt)}|{tokenizer.decode_tokens(tokens[len(prompt) :])}"
