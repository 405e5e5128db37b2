"""Which architecture is trained, and its sizes."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from functions.train.options.part import Count, Dropout, Layers, Options


class CnnOptions(Options):
    """Blocks of 3x3 convolution, batch normalisation and ReLU, one per entry of `channels`, then two dense layers."""

    architecture: Literal["cnn"]
    channels: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]
    hidden: Count
    dropout: Dropout = 0.0


class MlpOptions(Options):
    """Dense layers with ReLU, one per entry of `hidden`, over all the values of an example, table or image."""

    architecture: Literal["mlp"]
    hidden: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]
    dropout: Dropout = 0.0


class RnnOptions(Options):
    """Recurrent layers that read an image from its first row to its last, and with `bidirectional` back again too."""

    architecture: Literal["rnn"]
    cell: Literal["lstm", "gru"]
    hidden: Count
    layers: Layers = 1
    bidirectional: bool = False
    dropout: Dropout = 0.0


class TransformerOptions(Options):
    """An encoder over the square patches of an image, which must divide its sides."""

    architecture: Literal["transformer"]
    patch: Count  # pixels
    width: Count
    heads: Count
    layers: Layers
    hidden: Count  # width of the two dense layers' middle in each block
    pooling: Literal["mean", "cls"] = "mean"
    dropout: Dropout = 0.0

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, and {self.width} is none of {self.heads}")
        return self


class CustomOptions(Options):
    """A model of the user's own: `module:factory`, and what it is given by name. See `factory`, also for its trust."""

    architecture: Literal["custom"]
    factory: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
    arguments: dict[str, Any] = Field(default_factory=dict)


ModelOptions = Annotated[
    CnnOptions | MlpOptions | RnnOptions | TransformerOptions | CustomOptions, Field(discriminator="architecture")
]
