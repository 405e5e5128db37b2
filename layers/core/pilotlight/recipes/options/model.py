"""Which architecture is trained, and its sizes."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pilotlight.recipes.options.part import Count, Dropout, Layers, Options, Positive


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
    hidden: Count  # hidden width of each block's feed-forward part
    pooling: Literal["mean", "cls"] = "mean"
    dropout: Dropout = 0.0

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, and {self.width} is none of {self.heads}")
        return self


class CustomOptions(Options):
    """A model of the user's own: `module:factory`, and what it is given by name. See `factory`, also for its trust."""

    architecture: Literal["custom"]
    factory: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
    arguments: dict[str, Any] = Field(default_factory=dict)


class DecoderOptions(Options):
    """A language model of Llama's shape. How many tokens there are is for the tokenizer to say."""

    architecture: Literal["decoder"]
    layers: Layers
    width: Count
    heads: Count
    kv_heads: Count  # of keys and values; as many as heads: multi-head attention, one: multi-query attention
    hidden: Count  # hidden width of each block's feed-forward part
    context: Count  # tokens that the model sees at once, not counting the one it predicts
    tied: bool = True  # the embedding and the output layer share one matrix
    dropout: Dropout = 0.0
    base: Positive = 1e4  # of the rotary positions' wavelengths
    epsilon: Positive = 1e-5  # added to the mean square that RMSNorm divides by

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width must be an even multiple of heads, and {self.width} is none of {self.heads}: "
                "rotary positions turn pairs of a head's values"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"heads must be a multiple of kv_heads, and {self.heads} is none of {self.kv_heads}")
        return self


ModelOptions = Annotated[
    CnnOptions | MlpOptions | RnnOptions | TransformerOptions | DecoderOptions | CustomOptions,
    Field(discriminator="architecture"),
]
