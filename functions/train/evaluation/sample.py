"""A few lines that a language model writes, for people who look. Nothing is measured here."""

import torch
from torch import nn

from functions.train.data.dataset import Array
from functions.train.data.tokenizer import Tokenizer
from functions.train.training.step import device_of

GIVEN, WRITTEN = 16, 96  # tokens
TEMPERATURE = 0.8


def write(model: nn.Module, tokenizer: Tokenizer, window: Array) -> str:
    """A window's first tokens, a bar, and how the model goes on; the same model writes the same on a CPU."""
    drawing = torch.Generator().manual_seed(0)
    begun = window[: min(GIVEN, len(window) // 2)].tolist()
    written = list(begun)
    with torch.inference_mode():
        for _ in range(WRITTEN):
            seen = torch.tensor([written[-len(window) :]], device=device_of(model))
            chances = torch.softmax(model.eval()(seen)[0, -1].float().cpu() / TEMPERATURE, dim=0)
            written.append(int(torch.multinomial(chances, 1, generator=drawing)))
    return f"{tokenizer.words(begun)}|{tokenizer.words(written[len(begun) :])}"
