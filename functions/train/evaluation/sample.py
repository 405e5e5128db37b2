"""A few lines that a language model writes, for people who look. Nothing is measured here."""

import torch
from torch import nn

from functions.train.data import Array
from functions.train.data.tokenizer import Tokenizer
from functions.train.training.step import get_model_device

PROMPT_TOKENS, GENERATED_TOKENS = 16, 96  # tokens
TEMPERATURE = 0.8


def sample_text(model: nn.Module, tokenizer: Tokenizer, window: Array) -> str:
    """A window's first tokens, a bar, and how the model goes on; the same model writes the same on a CPU."""
    generator = torch.Generator().manual_seed(0)
    prompt = window[: min(PROMPT_TOKENS, len(window) // 2)].tolist()
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(GENERATED_TOKENS):
            context = torch.tensor([tokens[-len(window) :]], device=get_model_device(model))
            probabilities = torch.softmax(model.eval()(context)[0, -1].float().cpu() / TEMPERATURE, dim=0)
            tokens.append(int(torch.multinomial(probabilities, 1, generator=generator)))
    return f"{tokenizer.decode_tokens(prompt)}|{tokenizer.decode_tokens(tokens[len(prompt) :])}"
