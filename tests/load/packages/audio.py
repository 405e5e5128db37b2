"""Models for sound, each beside its package's own code: windows with a state, overlapping windows, Whisper's mels."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import soundfile
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from pilotlight.runtime.datatypes import Array
from tests.load.packages.catalogue import SILERO, PackagedGraph
from tests.load.packages.own_code import load_definitions
from tests.load.packages.stepped import Case, SteppedModel
from tests.load.packages.trial import open_bare_session

PITCH = "basic-pitch==0.4.0"
PIPECAT = "pipecat-ai==1.14.0"
SMART_TURN = "pipecat/audio/turn/smart_turn"
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240))  # Hz of the formants of a, i and u
PITCH_OUTPUTS = {"note": 1, "onset": 2, "contour": 0}  # with the number in the name of the graph's output


def make_voice(rate: int, seconds: float) -> Array:
    """Make a sound like a voice: pulses of a moving pitch through resonances, syllable by syllable, with pauses."""
    time = np.arange(int(rate * seconds)) / rate
    pulses = np.diff(np.floor(np.cumsum((120 + 25 * np.sin(2 * np.pi * 0.7 * time)) / rate)), prepend=0.0)
    voice = np.zeros_like(time)
    for place, formants in enumerate(VOWELS):
        span = (time * 3).astype(int) % (len(VOWELS) + 1) == place  # the fourth part is a pause
        for formant in formants:
            ring = np.exp(-np.arange(rate // 50) * 250 / rate) * np.sin(
                2 * np.pi * formant * np.arange(rate // 50) / rate
            )
            voice += span * np.convolve(pulses, ring)[: len(time)]
    noise = np.random.default_rng(0).standard_normal(len(time)) * 0.002
    return np.asarray(voice / np.abs(voice).max() * 0.7 + noise, np.float32)


def write(sound: Array, rate: int, kind: str = "WAV") -> bytes:
    """Write a file of 16 bits."""
    target = io.BytesIO()
    soundfile.write(target, sound, rate, format=kind, subtype="PCM_16")
    return target.getvalue()


def read(file: bytes, rate: int | None = None) -> tuple[Array, int]:
    """Read a file as librosa's `load` does: the mean of the channels, at `rate`."""
    samples, own = soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if rate is None or rate == own:
        return mono, own
    return soxr.resample(mono, own, rate, quality="HQ"), rate


def make_silero_case(graph: Path) -> Case:
    """Ask silero's own wrapper for the probability of each window."""
    import torch  # of the package's own code

    file = write(make_voice(16_000, 5.013), 16_000)
    namespace = {"torch": torch, "np": np, "warnings": SimpleNamespace(warn=lambda _: None)}
    defined = load_definitions(SILERO, "silero_vad/utils_vad.py", ["OnnxWrapper"], namespace)
    wrapper = defined["OnnxWrapper"](str(graph), force_onnx_cpu=True)
    probabilities = wrapper.audio_forward(torch.from_numpy(read(file)[0]), sr=16_000)
    return Case((file,), {"output": probabilities.numpy().reshape(-1, 1)})


def make_pitch_case(graph: Path) -> Case:
    """Cut windows by basic-pitch's own code, and run each by onnxruntime."""
    stereo = np.stack([make_voice(44_100, 4.2), make_voice(44_100, 4.2)[::-1]], axis=1)
    file = write(stereo, 44_100, "FLAC")
    constants = ["AUDIO_SAMPLE_RATE", "FFT_HOP", "AUDIO_WINDOW_LENGTH", "AUDIO_N_SAMPLES"]
    namespace: dict[str, Any] = load_definitions(PITCH, "basic_pitch/constants.py", constants, {"np": np})
    namespace["librosa"] = SimpleNamespace(load=lambda _, sr, mono: read(file, sr if mono else None))
    defined = load_definitions(PITCH, "basic_pitch/inference.py", ["window_audio_file", "get_audio_input"], namespace)
    overlap = 30 * defined["FFT_HOP"]  # as in its `run_inference`
    windows = defined["get_audio_input"]("", overlap, defined["AUDIO_N_SAMPLES"] - overlap)
    session = open_bare_session(graph)
    names = [f"StatefulPartitionedCall:{place}" for place in PITCH_OUTPUTS.values()]
    answers = [session.run(names, {session.get_inputs()[0].name: window}) for window, _, _ in windows]
    joined = [np.concatenate(arrays) for arrays in zip(*answers, strict=True)]
    return Case((file,), dict(zip(names, joined, strict=True)))


def make_turn_case(graph: Path) -> Case:
    """Ask smart-turn's own analyzer about a sound of 48,000 samples a second that is shorter than its 8 s."""
    file = write(make_voice(48_000, 3.7), 48_000)
    features = load_definitions(
        PIPECAT,
        f"{SMART_TURN}/_whisper_features.py",
        [
            "_N_FFT", "_HOP_LENGTH", "_N_MELS", "_SAMPLING_RATE", "_MEL_FLOOR", "_NORM_VARIANCE_EPS", "_HANN_WINDOW",
            "_MEL_FILTERS", "_hertz_to_mel_slaney", "_mel_to_hertz_slaney", "_build_mel_filterbank",
            "_periodic_hann_window", "_power_spectrogram", "compute_whisper_log_mel_features",
        ],
        {"np": np, "sliding_window_view": sliding_window_view},
    )  # fmt: skip
    methods = ["_MODEL_SAMPLE_RATE", "_resample_to_model_rate", "_predict_endpoint"]
    namespace = features | {"soxr": soxr, "Any": Any, "cast": cast}
    defined = load_definitions(PIPECAT, f"{SMART_TURN}/local_smart_turn_v3.py", methods, namespace)
    samples, rate = read(file)
    analyzer = SimpleNamespace(_sample_rate=rate, _session=open_bare_session(graph), _log_data=False)
    analyzer._resample_to_model_rate = lambda array: defined["_resample_to_model_rate"](analyzer, array)
    probability = defined["_predict_endpoint"](analyzer, samples)["probability"]
    return Case((file,), {"logits": np.array([[probability]], np.float32)})


MODELS = (
    SteppedModel("silero-vad", PackagedGraph(SILERO, "silero_vad/data/silero_vad.onnx"), "audio", make_silero_case),
    SteppedModel(
        "basic-pitch", PackagedGraph(PITCH, "basic_pitch/saved_models/icassp_2022/nmp.onnx"), "audio", make_pitch_case
    ),
    SteppedModel(
        "smart-turn", PackagedGraph(PIPECAT, f"{SMART_TURN}/data/smart-turn-v3.2-cpu.onnx"), "audio", make_turn_case
    ),
)
