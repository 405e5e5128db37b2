"""Scores of a text: right numbers, and the same in however many parts they are computed."""

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from functions.train.language_models import text_scoring
from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.session import open_session
from tests.reference_decoder import ReferenceDecoder
from tests.tiny_decoders import TINY_LLAMA, build_checkpoint, draw_weights, write_tiny_decoder

SPEC = DecoderSpec(
    family="llama", context_length=256, vocabulary_size=320, layers=2, kv_heads=2, head_size=16, end_tokens=(1,)
)


@pytest.mark.parametrize("rows", [3, 128])
def test_losses_are_those_of_the_reference(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_scoring, "ROWS_AT_ONCE", rows)
    decoder = write_tiny_decoder(tmp_path)
    windows = [[3, 17, 200, 45, 9, 310, 77], [5, 6, 7, 8, 9, 10, 11]]
    scores = text_scoring.score_windows(
        open_session(str(decoder.graphs["fp32"])), decoder.spec, windows, lambda place: None
    )
    reference = ReferenceDecoder(build_checkpoint(TINY_LLAMA, draw_weights(TINY_LLAMA)))
    expected, likeliest = [], []
    for window in windows:
        logits = reference.compute_logits(window[:-1]).astype(np.float64)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected += [-np.log(share[token]) for share, token in zip(shares, window[1:], strict=True)]
        likeliest += list(shares.argmax(axis=1))
    np.testing.assert_allclose(scores.losses, expected, atol=1e-4)
    assert scores.likeliest.tolist() == likeliest
    assert scores.perplexity == pytest.approx(np.exp(np.mean(expected)), rel=1e-4)
    assert scores.compute_agreement(scores) == 1.0


def test_windows_are_whole_and_begin_as_prompts_do() -> None:
    tokens = list(range(100, 700))
    plain = text_scoring.split_windows(tokens, SPEC)
    assert [len(window) for window in plain] == [256, 256]
    assert plain[1][0] == 356
    begun = text_scoring.split_windows(tokens, replace(SPEC, begin_token=7))
    assert [(window[0], window[1], len(window)) for window in begun] == [(7, 100, 256), (7, 355, 256)]
    assert text_scoring.describe_evaluation(plain).examples == 2 * 255


def test_a_short_text_is_one_window_and_a_long_one_is_cut() -> None:
    assert text_scoring.split_windows([1, 2, 3], SPEC) == [[1, 2, 3]]
    assert len(text_scoring.split_windows([1] * 100_000, SPEC)) == text_scoring.MAX_WINDOWS
    with pytest.raises(InvalidInputError, match="fewer than two tokens"):
        text_scoring.split_windows([1], SPEC)


def test_the_text_is_pythons_help_or_a_file(tmp_path: Path) -> None:
    assert len(text_scoring.read_evaluation_text(None).text) == text_scoring.DEFAULT_CHARACTERS
    file = tmp_path / "letters.txt"
    file.write_text("Dear all", encoding="utf-8")
    assert text_scoring.read_evaluation_text(file) == text_scoring.EvaluationText("letters.txt", "Dear all")
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InvalidInputError, match=r"letters\.txt as a text in UTF-8"):
        text_scoring.read_evaluation_text(file)
