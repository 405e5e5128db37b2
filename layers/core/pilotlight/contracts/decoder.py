"""What serving needs to know of a decoder, a language model that predicts each token from those before it.

It also holds the names of its graph's tensors, by which whoever writes the graph and whoever runs it agree. The
key-value cache is an input and an output of the graph, and both may be the same memory: GroupQueryAttention, an
operator of onnxruntime, writes new keys and values behind the old ones in place. No position ids are needed, since that
operator counts them from the lengths.

| tensor | type and shape | meaning |
|---|---|---|
| `input_ids` | int64 (batch, tokens) | the new tokens of each sequence |
| `seqlens_k` | int32 (batch,) | the length of each sequence with its new tokens, minus 1 |
| `total_sequence_length` | int32 () | the greatest of these lengths, without the minus 1 |
| `keep` | int64 (1,) | for how many of the last tokens logits are computed |
| `past_key_values.N.key`, `.value` | float32 (batch, kv_heads, capacity, head_size) | the cache of layer N |
| `logits` | float32 (batch, keep, vocabulary) | scores of the token that follows each of the last `keep` |
| `present.N.key`, `.value` | as the past | the same cache with the new tokens |
"""

from typing import Annotated

from msgspec import Meta, Struct

INPUT_IDS, LOGITS = "input_ids", "logits"
SEQUENCE_LENGTHS, TOTAL_LENGTH, KEEP = "seqlens_k", "total_sequence_length", "keep"
PAST_PREFIX, PRESENT_PREFIX = "past_key_values", "present"
CACHE_PARTS = ("key", "value")

Positive = Annotated[int, Meta(ge=1)]
TokenId = Annotated[int, Meta(ge=0)]


class DecoderSpec(Struct, frozen=True, kw_only=True):
    """A decoder's sizes and special tokens; its manifest names the tokenizer."""

    family: str  # `model_type` of its config.json, such as llama, qwen3, gemma3_text or phi3
    context_length: Positive  # tokens of prompt and answer together
    vocabulary_size: Positive  # columns of the logits, of which the tokenizer may not use all
    layers: Positive
    kv_heads: Positive
    head_size: Positive
    end_tokens: Annotated[tuple[TokenId, ...], Meta(min_length=1)]  # each of them ends an answer
    begin_token: TokenId | None = None  # which every prompt begins with, unless a chat template writes it itself
    chat_template: str | None = None  # path of the Jinja text among the files; without it, there are no chats
    special_tokens: dict[str, str] = {}  # names in chat templates and their text: bos_token, eos_token, ...

    @property
    def cache_bytes_per_token(self) -> int:
        """The memory of a token's keys and values in all layers, in bytes of fp32."""
        return len(CACHE_PARTS) * self.layers * self.kv_heads * self.head_size * 4


def name_cache_inputs(layer: int) -> tuple[str, ...]:
    """Name the inputs for a layer's keys and values."""
    return tuple(f"{PAST_PREFIX}.{layer}.{part}" for part in CACHE_PARTS)


def name_cache_outputs(layer: int) -> tuple[str, ...]:
    """Name the outputs for a layer's keys and values."""
    return tuple(f"{PRESENT_PREFIX}.{layer}.{part}" for part in CACHE_PARTS)
