"""Byte-level byte-pair encoding: the only module that imports `tokenizers`.

Any text can be encoded and decoded without loss, since each byte is a token; the merges are learned from the training
set alone. Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, 2016.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from functions.train.data import Array

END_OF_TEXT = "<|endoftext|>"  # put before each document, so that it also ends the previous one


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Encodes text as tokens, and decodes it."""

    native: tokenizers.Tokenizer

    @classmethod
    def train_from_texts(cls, texts: Iterable[str], vocabulary_size: int) -> "Tokenizer":
        """Train up to so many tokens: the end of a document, the 256 bytes, then the most frequent merges."""
        native = tokenizers.Tokenizer(models.BPE())
        native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        native.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
        )
        native.train_from_iterator(texts, trainer)
        return cls(native)

    @property
    def json_document(self) -> str:
        """The tokenizer as `tokenizer.json`, which `tokenizers` and Hugging Face's libraries read."""
        return self.native.to_str(pretty=True)

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The tokens by number. All but END_OF_TEXT are written in an alphabet of 256 letters, one for each byte."""
        by_word = self.native.get_vocab()
        return tuple(sorted(by_word, key=by_word.__getitem__))

    @cached_property
    def byte_lengths(self) -> Array:
        """How many bytes of text each token has, int64 (vocabulary,)."""
        return np.array([0 if token == END_OF_TEXT else len(token) for token in self.tokens], np.int64)

    def encode_documents(self, documents: Iterable[str]) -> Array:
        """Encode the documents one after the other, each preceded by END_OF_TEXT, int64."""
        end = self.tokens.index(END_OF_TEXT)
        numbers = [[end, *encoded.ids] for encoded in self.native.encode_batch(list(documents))]
        return np.concatenate([np.array(each, np.int64) for each in numbers])

    def decode_tokens(self, token_ids: Sequence[int]) -> str:
        """Decode tokens to text."""
        return self.native.decode(list(token_ids), skip_special_tokens=False)


@dataclass(frozen=True, eq=False)
class TokenizedText:
    """The tokens of a text, and the tokenizer that encoded it."""

    tokens: Array  # tokens, int64
    tokenizer: Tokenizer
