"""Log-mel spectrograms equal those of their definitions, which are computed here frame by frame."""

import numpy as np
import pytest

from pilotlight.contracts.processing import LogMelSpectrogram
from pilotlight.processing.spectrogram import (
    build_mel_filters,
    compute_log_mel,
    convert_to_hertz,
    convert_to_mels,
    count_frames,
)
from pilotlight.runtime.datatypes import Array

RATE = 16_000
SOUND = np.random.default_rng(1).uniform(-0.5, 0.5, 4_000).astype(np.float32)


def transform_directly(samples: Array, window: Array, hop: int) -> Array:
    """The magnitudes of each frame by the sum that defines the Fourier transform: (frames, frequencies)."""
    length = len(window)
    basis = np.exp(-2j * np.pi * np.outer(np.arange(length // 2 + 1), np.arange(length)) / length)
    starts = range(0, len(samples) - length + 1, hop)
    return np.array([np.abs(basis @ (samples[start : start + length] * window)) for start in starts])


def whisper_directly(samples: Array) -> Array:
    """Whisper's features, from its source: https://github.com/openai/whisper, audio.py."""
    padded = np.pad(samples.astype(np.float64), 200, mode="reflect")
    window = np.array([0.5 * (1 - np.cos(2 * np.pi * place / 400)) for place in range(400)])
    energies = transform_directly(padded, window, 160)[:-1].T ** 2
    logs = np.log10(np.maximum(slaney_filters() @ energies, 1e-10))
    return np.asarray((np.maximum(logs, logs.max() - 8) + 4) / 4)


def slaney_filters() -> Array:
    """Eighty triangles of equal area, by their definition."""

    def hertz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    top = 15 + 27 * np.log(8) / np.log(6.4)  # of 8,000 Hz
    edges = [hertz(top * place / 81) for place in range(82)]
    filters = np.zeros((80, 201))
    for band in range(80):
        low, peak, high = edges[band : band + 3]
        for place in range(201):
            at = place * 40.0
            filters[band, place] = (
                max(0.0, min((at - low) / (peak - low), (high - at) / (high - peak))) * 2 / (high - low)
            )
    return filters


def test_whispers_features_are_those_of_its_definition() -> None:
    steps = LogMelSpectrogram(normalisation="whisper")
    found = compute_log_mel(steps, SOUND, RATE)
    assert found.shape == (80, 25)
    assert count_frames(steps, len(SOUND)) == 25
    np.testing.assert_allclose(found, whisper_directly(SOUND), atol=1e-6)


def test_a_long_sound_is_that_of_its_parts() -> None:
    steps = LogMelSpectrogram(hop=1, n_fft=64, n_mels=4, centre=False)
    whole = compute_log_mel(steps, np.tile(SOUND, 2), RATE)
    assert whole.shape == (4, 2 * len(SOUND) - 63)
    np.testing.assert_array_equal(whole[:, 4_096:], compute_log_mel(steps, np.tile(SOUND, 2)[4_096:], RATE))


def test_thirty_seconds_have_three_thousand_frames() -> None:
    assert count_frames(LogMelSpectrogram(normalisation="whisper"), 30 * RATE) == 3000


def test_bands_of_another_scale_window_and_power_are_those_of_their_definitions() -> None:
    steps = LogMelSpectrogram(
        n_fft=256, hop=100, n_mels=12, fmin=100, fmax=6000, window="hamming", centre=False, power=1,
        mel_scale="htk", equal_area=False, log="ln", floor=1e-3,
    )  # fmt: skip
    window = np.array([0.54 - 0.46 * np.cos(2 * np.pi * place / 256) for place in range(256)])
    magnitudes = transform_directly(SOUND.astype(np.float64), window, 100)
    mels = np.linspace(2595 * np.log10(1 + 100 / 700), 2595 * np.log10(1 + 6000 / 700), 14)
    edges = 700 * (10 ** (mels / 2595) - 1)
    at = np.arange(129) * RATE / 256
    filters = [np.interp(at, edges[band : band + 3], [0, 1, 0], 0, 0) for band in range(12)]
    expected = np.log(np.maximum(np.array(filters) @ magnitudes.T, 1e-3))
    found = compute_log_mel(steps, SOUND, RATE)
    assert found.shape == (12, count_frames(steps, len(SOUND)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_mels_and_hertz_are_inverse(scale: str) -> None:
    hertz = np.array([0.0, 40, 999.9, 1000, 1000.1, 4000, 12_000])
    np.testing.assert_allclose(convert_to_hertz(convert_to_mels(hertz, scale), scale), hertz, rtol=1e-12, atol=1e-9)


def test_a_pitch_is_loudest_in_its_band() -> None:
    steps = LogMelSpectrogram()
    time = np.arange(RATE) / RATE
    bands = compute_log_mel(steps, np.sin(2 * np.pi * 2000 * time).astype(np.float32), RATE)
    assert int(bands[:, 50].argmax()) == int(build_mel_filters(steps, RATE)[:, 50].argmax())  # 50 x 40 Hz
