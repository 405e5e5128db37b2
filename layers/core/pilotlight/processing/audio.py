"""Turn WAV, FLAC, OGG and MP3 files into the graph's sound input: the only module that imports soxr.

It knows a request's files and the manifest's steps, not the model. Headers are read and weighed before samples are
decoded. Resampling is soxr's, of high quality, as in librosa.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import soxr

from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import AudioPreprocessing, LogMelSpectrogram
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.native.calls import NativeCalls
from pilotlight.processing import wav
from pilotlight.processing.constants import build_constant_feeds, build_state_feeds
from pilotlight.processing.file_bytes import decode_file_bytes, describe_other_format
from pilotlight.processing.input_validation import check_row_count, flatten_column
from pilotlight.processing.spectrogram import compute_log_mel, count_frames
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from pilotlight.runtime.recurrence import Recurrence

MIN_RATE, MAX_RATE = 1_000, 768_000  # samples a second of a file
MAX_CHANNELS = 64
ROUNDED_FRAMES = 2_400  # that an MP3 or OGG file may have beyond its header's word: a frame of the format
VARIANCE_FLOOR = 1e-7  # Hugging Face's, when rows are standardised
# What people send beside them, by the bytes at a place.
OTHER_FORMATS = (
    (4, b"ftypM4", "AAC in MP4 (M4A)"),
    (4, b"ftypqt", "QuickTime"),
    (4, b"ftyp3g", "3GP"),
    (4, b"ftyp", "MP4"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"ADIF", "AAC"),
    (0, b"\x1aE\xdf\xa3", "WebM or Matroska, as browsers record it"),
    (0, b"#!AMR", "AMR"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "Windows Media (WMA)"),
    (0, b"FORM", "AIFF"),
    (0, b"caff", "Core Audio (CAF)"),
    (0, b".snd", "AU"),
    (0, b"riff.\x91\xcf\x11", "Wave64"),
    (0, b"RIFX", "WAV with the larger byte first"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"MThd", "MIDI, which has notes and no sound"),
)


@dataclass(frozen=True)
class Sound:
    """A file whose header is read; `source` decodes it."""

    file: bytes
    source: Any  # a WavHeader, or a CompressedAudio, whose module is imported when the first such file comes
    rate: int
    channels: int
    frames: int | None  # None: the header does not say


def find_recurrence(steps: AudioPreprocessing, manifest: Manifest) -> Recurrence | None:
    """Find whether the windows are run one after another: with a state, or for a graph that takes one row."""
    if steps.window is None:
        return None
    shape = next(spec.shape for spec in manifest.inputs if spec.name == steps.input)
    if steps.states or (shape[:1] == (1,) and (steps.layout != "S" or steps.spectrogram is not None)):
        return Recurrence(steps.input, {state.input: state.output for state in steps.states})
    return None


def build_audio_feeds(steps: AudioPreprocessing, manifest: Manifest, tensor: Array) -> Mapping[str, Array]:
    """Build all inputs of the graph from the files; an error names its file."""
    elements = flatten_column(tensor, steps.name)
    check_row_count(steps, len(elements))
    if steps.window is not None and len(elements) > 1:
        raise InvalidInputError(
            f"The request has {len(elements)} audio files, and the model takes the windows of one as its rows; send "
            "one file at a time."
        )
    sounds = open_sounds(steps, elements)
    rows, lengths = arrange_rows(steps, decode_sounds(steps, sounds))
    prepared, lengths = lay_out(steps, rows, lengths)
    spec = next(spec for spec in manifest.inputs if spec.name == steps.input)
    dtype = NUMPY_DTYPES[spec.datatype]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        prepared = np.rint(prepared).clip(limits.min, limits.max)
    feeds = {steps.input: np.ascontiguousarray(prepared, dtype)}
    counted = lengths[:1] if find_recurrence(steps, manifest) else lengths
    return (
        feeds
        | build_constant_feeds(steps.constants, manifest, steps.input, counted)
        | build_state_feeds(steps.states, manifest, steps.input)
    )


def open_sounds(steps: AudioPreprocessing, elements: Array) -> list[Sound]:
    """Read the headers without decoding; refuse files that are too long together."""
    sounds = []
    for place, element in enumerate(elements):
        try:
            sounds.append(open_sound(decode_file_bytes(element)))
        except InvalidInputError as exc:
            raise build_audio_error(place, str(exc)) from exc
    seconds = [(sound.frames or 0) / sound.rate for sound in sounds]
    if sum(seconds) > steps.max_seconds:
        examples = ", ".join(f"{one:,.1f} s" for one in seconds[:8])
        raise TooLargeError(
            f"The request's audio files have {sum(seconds):,.1f} s together ({examples}), more than "
            f"{steps.max_seconds:,.1f}; send shorter or fewer ones."
        )
    values = sum((sound.frames or 0) * sound.channels for sound in sounds)
    check_sample_count(steps, values, "of all channels")
    check_sample_count(steps, ceil(sum(seconds) * steps.rate), f"at {steps.rate:,} a second")
    return sounds


def check_sample_count(steps: AudioPreprocessing, samples: int, kind: str) -> None:
    """Refuse files that have more samples together than a request may."""
    if samples > steps.max_values:
        raise TooLargeError(
            f"The request's audio files have {samples:,} samples {kind} together, more than {steps.max_values:,}; "
            "send shorter ones, or one channel."
        )


def open_sound(file: bytes) -> Sound:
    """Read a file's header; the error is the end of a sentence."""
    if wav.is_wav(file):
        header = wav.parse_header(file)
        sound = Sound(file, header, header.rate, header.channels, header.frames)
    else:
        from pilotlight.processing.compressed_audio import SIGNATURES, CompressedAudio

        if not file.startswith(SIGNATURES):
            hint = describe_other_format(file, OTHER_FORMATS, "WAV, FLAC, OGG or MP3")
            raise InvalidInputError(f"is no WAV, FLAC, OGG or MP3: its {len(file)} bytes start with {file[:8]!r}{hint}")
        source = CompressedAudio(file)
        sound = Sound(file, source, source.rate, source.channels, source.frames)
    if not MIN_RATE <= sound.rate <= MAX_RATE:
        raise InvalidInputError(f"has {sound.rate:,} samples a second; {MIN_RATE:,} to {MAX_RATE:,} are read")
    if sound.channels > MAX_CHANNELS:
        raise InvalidInputError(f"has {sound.channels} channels, more than {MAX_CHANNELS}")
    return sound


def decode_sounds(steps: AudioPreprocessing, sounds: Sequence[Sound]) -> list[Array]:
    """Decode the files one after another; what the headers have not told counts as well."""
    decoded, seconds = [], steps.max_seconds
    for place, sound in enumerate(sounds):
        samples = decode_sound(steps, sound, place, seconds)
        seconds -= len(samples) / steps.rate
        decoded.append(samples)
    return decoded


def decode_sound(steps: AudioPreprocessing, sound: Sound, place: int, max_seconds: float) -> Array:
    """Decode a file, mix its channels, resample it and scale it: float32, (samples,)."""
    try:
        samples = decode_mono(steps, sound, max_seconds)
    except TooLargeError as exc:
        raise TooLargeError(f"Audio {place} {exc}.") from exc
    except InvalidInputError as exc:
        raise build_audio_error(place, str(exc)) from exc
    if not samples.size:
        raise build_audio_error(place, "has no samples")
    if not np.isfinite(samples).all():
        raise build_audio_error(place, "has samples that are infinite or no numbers")
    samples = resample(samples, sound.rate, steps.rate)
    return samples if steps.scale == 1 else samples * np.float32(steps.scale)


def decode_mono(steps: AudioPreprocessing, sound: Sound, max_seconds: float) -> Array:
    """Decode a file to the mean of its channels."""
    if isinstance(sound.source, wav.WavHeader):
        frames = wav.decode_samples(sound.file, sound.source)
        return frames[:, 0] if sound.channels == 1 else frames.mean(axis=1)
    by_time = ceil(max(0.0, max_seconds) * sound.rate) + ROUNDED_FRAMES
    samples: Array = sound.source.decode(min(by_time, steps.max_values // sound.channels))
    return samples


def build_resampling_error(cause: str) -> InvalidInputError:
    """Build the error of samples that cannot be resampled."""
    return InvalidInputError(f"The audio cannot be resampled: {cause}.")


@NativeCalls("soxr", build_resampling_error, (RuntimeError, ValueError, TypeError))
def resample(samples: Array, rate: int, wanted: int) -> Array:
    """Resample to the wanted rate; the length is rounded up, as librosa does."""
    if rate == wanted:
        return samples
    found: Array = soxr.resample(samples, rate, wanted, quality="HQ")
    return fit_length(found, ceil(len(samples) * wanted / rate), "start")


def fit_length(samples: Array, length: int, keep: str) -> Array:
    """Cut samples to a length, or fill them with silence; `keep` is the side that stays."""
    if len(samples) >= length:
        return samples[:length] if keep == "start" else samples[len(samples) - length :]
    missing = length - len(samples)
    return np.pad(samples, (0, missing) if keep == "start" else (missing, 0))


def arrange_rows(steps: AudioPreprocessing, sounds: Sequence[Array]) -> tuple[Array, list[int]]:
    """Arrange the sounds as rows of equal length, with the lengths that each had before silence filled it."""
    if steps.window is not None:
        rows = cut_windows(steps, sounds[0])
        return rows, [steps.window] * len(rows)
    if steps.length is not None:
        check_values(steps, len(sounds), steps.length)
        fitted = np.stack([fit_length(samples, steps.length, steps.keep) for samples in sounds])
        return fitted, [min(len(samples), steps.length) for samples in sounds]
    for place, samples in enumerate(sounds):
        if len(samples) != len(sounds[0]):
            raise build_audio_error(
                place,
                f"has {len(samples):,} samples and audio 0 has {len(sounds[0]):,}, at {steps.rate:,} a second; the "
                "model takes them as they are: send equal lengths, or one at a time",
            )
    return np.stack(sounds), [len(samples) for samples in sounds]


def cut_windows(steps: AudioPreprocessing, samples: Array) -> Array:
    """Cut a sound into windows, (windows, samples), by the steps."""
    window = steps.window or len(samples)
    hop = steps.hop or window
    total = len(samples) + steps.lead
    if steps.tail == "start":
        count = ceil(total / hop)
    elif steps.tail == "drop":
        count = (total - window) // hop + 1
    else:
        count = max(0, ceil((total - window) / hop)) + 1
    if count < 1:
        raise build_audio_error(0, f"has {len(samples):,} samples, less than one window of {window:,}")
    check_values(steps, count, window)
    end = (count - 1) * hop + window
    padded = np.zeros(max(end, total), np.float32)
    padded[steps.lead : total] = samples
    return np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:count]


def check_values(steps: AudioPreprocessing, rows: int, length: int) -> None:
    """Refuse rows that take too much memory."""
    if rows * length > steps.max_values:
        raise TooLargeError(
            f"The request's audio makes {rows:,} rows of {length:,} samples, more than {steps.max_values:,} together; "
            f"send about {max(1, steps.max_values // length):,} rows' worth at once."
        )


def lay_out(steps: AudioPreprocessing, rows: Array, lengths: list[int]) -> tuple[Array, list[int]]:
    """Standardise the rows, compute their spectrograms, and arrange the dimensions as the graph takes them."""
    if steps.standardise:
        centred = rows - rows.mean(axis=1, keepdims=True)
        rows = centred / np.sqrt(rows.var(axis=1, keepdims=True) + VARIANCE_FLOOR)
    if steps.spectrogram is not None:
        return lay_out_bands(steps, steps.spectrogram, rows, lengths)
    if steps.layout == "S":
        if len(rows) > 1:
            raise InvalidInputError(f"The request's audio makes {len(rows)} rows, and the model takes one; send less.")
        return rows[0], lengths
    return {"NS": rows, "N1S": rows[:, None], "NS1": rows[..., None]}[steps.layout], lengths


def lay_out_bands(
    steps: AudioPreprocessing, spectrogram: LogMelSpectrogram, rows: Array, lengths: list[int]
) -> tuple[Array, list[int]]:
    """Compute the spectrograms of the rows, with the number of frames of each before silence filled it."""
    frames = count_frames(spectrogram, rows.shape[1])
    if frames < 1 or (spectrogram.centre and rows.shape[1] <= spectrogram.n_fft // 2):
        raise build_audio_error(
            0, f"has {rows.shape[1]:,} samples, too few for a spectrogram with frames of {spectrogram.n_fft:,}"
        )
    check_values(steps, len(rows) * frames, max(spectrogram.n_fft, spectrogram.n_mels))
    bands = np.stack([compute_log_mel(spectrogram, row, steps.rate) for row in rows])
    if spectrogram.layout.endswith("TM"):
        bands = bands.transpose(0, 2, 1)
    if "1" in spectrogram.layout:
        bands = bands[:, None]
    return bands, [max(1, min(frames, count_frames(spectrogram, length))) for length in lengths]


def build_audio_error(place: int, reason: str) -> InvalidInputError:
    """Build the error for one of a request's files."""
    return InvalidInputError(f"Audio {place} {reason}.")
