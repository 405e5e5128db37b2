"""The scores of a model: its outputs against the targets, and a sample of what a language model generates."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.evaluation.score import Score
from functions.train.evaluation.totals import LanguageModelTotals, Totals, build_totals
from functions.train.training.device import get_model_device

if TYPE_CHECKING:  # imports tokenizers
    from functions.train.data.tokenizer import Tokenizer

PROMPT_TOKENS, GENERATED_TOKENS = 16, 96  # tokens
TEMPERATURE = 0.8


def evaluate_outputs(outputs: Array, data: Dataset) -> Score:
    """Score a model's outputs for all of a data set."""
    return add_outputs(build_totals(data), outputs, data.targets)


def score_outputs(outputs: Array, targets: Array, classes: Sequence[str]) -> Score:
    """Score (N, classes) logits against (N,) labels; without classes (N, 1) numbers against (N, 1) right ones."""
    return add_outputs(build_totals(Dataset(targets, targets, tuple(classes))), outputs, targets)


def score_language_model(logits: Array, targets: Array, widths: Array) -> Score:
    """Score (N, T, tokens) logits against the (N, T) tokens that follow, which have `widths` bytes each."""
    return add_outputs(LanguageModelTotals(widths), logits, targets)


def add_outputs(totals: Totals, outputs: Array, targets: Array) -> Score:
    """Score outputs that are all in memory."""
    totals.add(torch.from_numpy(np.asarray(outputs)), torch.from_numpy(np.asarray(targets)))
    return totals.score()


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
