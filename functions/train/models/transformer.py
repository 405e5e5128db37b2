"""The Transformer encoder over the patches of an image (Dosovitskiy et al., 2021), normalised before each step."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from functions.train.models.image_shape import parse_image_shape
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import TransformerOptions

# Of the positions as drawn. The paper's code has 0.02; on digits' 1,078 images that is too little beside the patches:
# validation loss 0.09 to 0.14, and 0.06 at 0.3 (infra/docs/performance.md).
POSITION_INIT_STD = 0.3


def build_transformer_layers(
    options: TransformerOptions, input_shape: tuple[int, ...], output_size: int
) -> list[nn.Module]:
    """Build (N, C, H, W) to (N, outputs); `InvalidInputError` when the patches do not divide the image."""
    channels, height, width = parse_image_shape("transformer", input_shape)
    patch = options.patch
    if height % patch or width % patch:
        raise InvalidInputError(f"model.patch is {patch}; it must divide the {height} x {width} pixels of an image.")
    body: list[nn.Module] = [PatchSplitter(patch), nn.Linear(channels * patch**2, options.width)]
    body.append(PositionEmbedding(options, (height // patch) * (width // patch)))
    body += [EncoderBlock(options) for _ in range(options.layers)]
    return [*body, nn.LayerNorm(options.width), SequencePooling(options.pooling), nn.Linear(options.width, output_size)]


class PatchSplitter(nn.Module):
    """An image as the sequence of its patches, row by row."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size  # pixels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, H / side * W / side, C * side * side)."""
        channels, height, width = image.shape[1:]
        tiles = image.reshape(
            -1, channels, height // self.patch_size, self.patch_size, width // self.patch_size, self.patch_size
        )
        return tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class PositionEmbedding(nn.Module):
    """Adds to each patch what was learned of its position; for `cls` pooling, a token of its own precedes the first."""

    def __init__(self, options: TransformerOptions, patches: int) -> None:
        super().__init__()
        tokens = patches + (options.pooling == "cls")
        self.places = nn.Parameter(POSITION_INIT_STD * torch.randn(1, tokens, options.width))
        self.class_token_count = tokens - patches
        self.drop = nn.Dropout(options.dropout)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Map (N, patches, width) to (N, tokens, width)."""
        padded = nn.functional.pad(
            sequence, (0, 0, self.class_token_count, 0)
        )  # the class token starts as its position alone
        dropped: torch.Tensor = self.drop(padded + self.places)
        return dropped


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + dense(norm(x)): the pre-norm order (Xiong et al., 2020)."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        width, hidden, drop = options.width, options.hidden, nn.Dropout(options.dropout)
        self.attend = nn.Sequential(nn.LayerNorm(width), SelfAttention(width, options.heads), drop)
        dense = [nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)]
        self.think = nn.Sequential(nn.LayerNorm(width), *dense, drop)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Map (N, tokens, width) to the same shape."""
        attended = sequence + self.attend(sequence)
        thought: torch.Tensor = attended + self.think(attended)
        return thought


class SelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V in several heads (Vaswani et al., 2017), every token seeing all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Map (N, tokens, width) to the same shape."""
        tokens, width = sequence.shape[1:]
        split = self.project(sequence).reshape(-1, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)  # (N, heads, tokens, d) each
        attended = scaled_dot_product_attention(query, key, value)
        merged: torch.Tensor = self.merge(attended.transpose(1, 2).flatten(2))
        return merged


class SequencePooling(nn.Module):
    """One vector for the sequence: its mean, or its first token."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.uses_mean = kind == "mean"

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Map (N, tokens, width) to (N, width)."""
        return sequence.mean(dim=1) if self.uses_mean else sequence[:, 0]
