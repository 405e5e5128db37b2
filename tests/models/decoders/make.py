"""Compute the logits of `tests/tiny_checkpoints.py` by transformers, which is not a dependency of this tree.

`python -m tests.models.decoders.make`, with torch 2.13.0 and transformers 5.24.0 beside `functions/train`'s own
requirements, writes logits.npz: for each checkpoint those of the last of `TOKENS`.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny_checkpoints import CONFIGS, VOCABULARY, write_checkpoint

TOKENS = [index * 37 % VOCABULARY for index in range(1, 31)]  # more than any window


def compute_logits(name: str) -> np.ndarray:
    """Compute the logits, (vocabulary,)."""
    import torch
    from transformers import AutoModelForCausalLM  # type: ignore[import-not-found]  # see above

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(
            write_checkpoint(Path(folder), name), dtype=torch.float32, attn_implementation="eager"
        )
        logits: np.ndarray = model.eval()(torch.tensor([TOKENS])).logits[0, -1].numpy()
    return logits


if __name__ == "__main__":
    computed: dict[str, Any] = {name: compute_logits(name) for name in CONFIGS}
    np.savez(Path(__file__).with_name("logits.npz"), **computed)
