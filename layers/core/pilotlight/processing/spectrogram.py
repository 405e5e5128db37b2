"""Compute log-mel spectrograms with numpy alone, as librosa and Whisper do: in float64, rounded at the end.

It knows samples and the manifest's steps.
"""

import functools

import numpy as np

from pilotlight.contracts.processing import LogMelSpectrogram
from pilotlight.runtime.datatypes import Array

# Slaney's scale: linear up to 1,000 Hz, which is mel 15, then logarithmic.
LINEAR_HZ, LINEAR_MELS, LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27
WINDOW_TERMS = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46), "rectangular": (1.0, 0.0)}  # of a + b * -cos
CHUNK_FRAMES = 4_096  # that are transformed at once, of about 16 kB each
WHISPER_RANGE = 8.0  # powers of ten below the largest value


def count_frames(steps: LogMelSpectrogram, samples: int) -> int:
    """Count the frames of so many samples; 0 if they are too few for one."""
    frames = (samples + (2 * (steps.n_fft // 2) if steps.centre else 0) - steps.n_fft) // steps.hop + 1
    return max(0, frames - (steps.normalisation == "whisper"))


def compute_log_mel(steps: LogMelSpectrogram, samples: Array, rate: int) -> Array:
    """Compute the bands of one row of samples: float32, (mels, frames)."""
    wide = samples.astype(np.float64)
    if steps.centre:
        wide = np.pad(wide, steps.n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(wide, steps.n_fft)[:: steps.hop]
    starts = range(0, len(frames), CHUNK_FRAMES)
    bands = [compute_bands(steps, frames[start : start + CHUNK_FRAMES], rate) for start in starts]
    return normalise_bands(steps, np.concatenate(bands, axis=1)).astype(np.float32)


def compute_bands(steps: LogMelSpectrogram, frames: Array, rate: int) -> Array:
    """Compute the energies of the bands in these frames: (mels, frames)."""
    magnitudes = np.abs(np.fft.rfft(frames * build_window(steps.window, steps.n_fft)))
    return np.asarray(build_mel_filters(steps, rate) @ (magnitudes**steps.power).T)


def normalise_bands(steps: LogMelSpectrogram, bands: Array) -> Array:
    """Take the logarithm, and normalise it."""
    if steps.log != "none":
        logarithm = np.log10 if steps.log == "log10" else np.log
        bands = logarithm(np.maximum(bands, steps.floor))
    if steps.normalisation == "none":
        return bands
    bands = bands[:, :-1]
    return np.asarray((np.maximum(bands, bands.max() - WHISPER_RANGE) + 4) / 4)


@functools.cache
def build_window(name: str, length: int) -> Array:
    """Build the periodic window of a frame."""
    constant, amplitude = WINDOW_TERMS[name]
    return np.asarray(constant - amplitude * np.cos(2 * np.pi * np.arange(length) / length))


@functools.lru_cache(maxsize=8)
def build_mel_filters(steps: LogMelSpectrogram, rate: int) -> Array:
    """Build the triangular filters of the bands, (mels, frequencies)."""
    frequencies = np.linspace(0, rate / 2, steps.n_fft // 2 + 1)
    limits = convert_to_mels(np.array([steps.fmin, steps.fmax or rate / 2]), steps.mel_scale)
    edges = convert_to_hertz(np.linspace(limits[0], limits[1], steps.n_mels + 2), steps.mel_scale)
    widths, distances = np.diff(edges), edges[:, None] - frequencies
    rising, falling = -distances[:-2] / widths[:-1, None], distances[2:] / widths[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(filters * (2 / (edges[2:] - edges[:-2]))[:, None] if steps.equal_area else filters)


def convert_to_mels(hertz: Array, scale: str) -> Array:
    """Convert frequencies to mels."""
    if scale == "htk":
        return np.asarray(2595 * np.log10(1 + hertz / 700))
    above = LINEAR_MELS + np.log(np.maximum(hertz, LINEAR_HZ) / LINEAR_HZ) / LOG_STEP
    return np.where(hertz >= LINEAR_HZ, above, hertz * LINEAR_MELS / LINEAR_HZ)


def convert_to_hertz(mels: Array, scale: str) -> Array:
    """Convert mels to frequencies."""
    if scale == "htk":
        return np.asarray(700 * (10 ** (mels / 2595) - 1))
    above = LINEAR_HZ * np.exp(LOG_STEP * (np.maximum(mels, LINEAR_MELS) - LINEAR_MELS))
    return np.where(mels >= LINEAR_MELS, above, mels * LINEAR_HZ / LINEAR_MELS)
