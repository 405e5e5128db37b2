"""Files of sound become the rows that models take: decoded, mixed, resampled, cut, and run in order."""

import base64
import io

import numpy as np
import pytest
import soundfile
import soxr

from pilotlight import processing
from pilotlight.contracts.manifest import Datatype, Manifest, TensorSpec
from pilotlight.contracts.processing import AudioPreprocessing, ConstantInput, LogMelSpectrogram, StateInput
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.runtime.datatypes import Array
from tests import fakes

SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 1600).astype(np.float32)
FREE = ("batch", "samples")


def file(sound: Array = SOUND, rate: int = 16_000, kind: str = "WAV", subtype: str = "FLOAT") -> bytes:
    target = io.BytesIO()
    soundfile.write(target, sound, rate, format=kind, subtype=subtype)
    return target.getvalue()


def model(
    shape: tuple[int | str, ...] = FREE,
    others: tuple[TensorSpec, ...] = (),
    datatype: Datatype = "FP32",
    **steps: object,
) -> Manifest:
    settings = AudioPreprocessing(**{"input": "x", "rate": 16_000, **steps})  # type: ignore[arg-type]  # by name
    outputs = (TensorSpec("y", "FP32", ("batch", 1)), TensorSpec("next", "FP32", (2, "batch", 4)))
    return fakes.stepped(settings, of=((TensorSpec("x", datatype, shape), *others), outputs))


def feeds(manifest: Manifest, *files: bytes | str) -> dict[str, Array]:
    elements = np.empty(len(files), object)
    elements[:] = files
    return dict(processing.preprocess_inputs(manifest, {"audio": elements}))


def rows(*files: bytes | str, **steps: object) -> Array:
    return feeds(model(**steps), *files)["x"]  # type: ignore[arg-type]  # by name


def read_or_refuse(sent: bytes) -> str:
    """The datatype that a file becomes, or why it does not."""
    try:
        return str(rows(sent).dtype)
    except InvalidInputError as exc:
        return str(exc)


def refuse(*files: bytes | str, **steps: object) -> str:
    with pytest.raises(InvalidInputError) as caught:
        rows(*files, **steps)
    return str(caught.value)


def test_bytes_and_base64_are_the_same_sound() -> None:
    raw = file()
    for sent in (raw, base64.b64encode(raw).decode(), f"data:audio/wav;base64,{base64.encodebytes(raw).decode()}"):
        np.testing.assert_array_equal(rows(sent), SOUND[None])


@pytest.mark.parametrize(
    ("kind", "subtype"), [("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS")]
)
def test_compressed_files_are_what_libsndfile_decodes(kind: str, subtype: str) -> None:
    raw = file(np.stack([SOUND, SOUND[::-1]], 1), kind=kind, subtype=subtype)
    expected = soundfile.read(io.BytesIO(raw), dtype="float32")[0].mean(axis=1)
    np.testing.assert_array_equal(rows(raw), expected[None])


def test_an_mp3_is_decoded() -> None:
    tone = np.sin(np.arange(16_000) * 2 * np.pi * 440 / 16_000).astype(np.float32) / 2
    found = rows(file(tone, kind="MP3", subtype="MPEG_LAYER_III"))
    assert abs(found.shape[1] - 16_000) < 1200
    assert np.abs(np.fft.rfft(found[0, 2000:10_000])).argmax() == 220


def test_a_flac_that_does_not_say_its_length_is_read_to_its_end() -> None:
    raw = bytearray(file(kind="FLAC", subtype="PCM_16"))
    raw[21] &= 0xF0
    raw[22:26] = bytes(4)  # 36 bits of STREAMINFO
    expected = soundfile.read(io.BytesIO(file(kind="FLAC", subtype="PCM_16")), dtype="float32")[0]
    np.testing.assert_array_equal(rows(bytes(raw)), expected[None])
    long = bytearray(file(np.tile(SOUND, 20), kind="FLAC", subtype="PCM_16"))
    long[21] &= 0xF0
    long[22:26] = bytes(4)
    assert "Audio 0 has more than 18,400 samples" in refuse(bytes(long), max_seconds=1)
    assert "Audio 1 has more than 10,400 samples" in refuse(bytes(long), bytes(long), max_seconds=2.5, length=9)


def test_channels_are_mixed_and_rates_converted() -> None:
    stereo = np.stack([SOUND, -SOUND / 2], axis=1)
    expected = soxr.resample(stereo.mean(axis=1), 44_100, 16_000, quality="HQ")
    found = rows(file(stereo, 44_100))
    assert found.shape == (1, int(np.ceil(1600 * 16_000 / 44_100)))
    np.testing.assert_array_equal(found[0, : len(expected)], expected[: found.shape[1]])


def test_a_length_is_cut_or_filled_at_the_side_that_is_not_kept() -> None:
    short = file(SOUND[:100])
    np.testing.assert_array_equal(rows(file(), length=300), SOUND[None, :300])
    np.testing.assert_array_equal(rows(file(), length=300, keep="end"), SOUND[None, -300:])
    np.testing.assert_array_equal(rows(short, length=103)[0], [*SOUND[:100], 0, 0, 0])
    np.testing.assert_array_equal(rows(short, length=103, keep="end")[0], [0, 0, 0, *SOUND[:100]])
    assert rows(file(), short, length=300).shape == (2, 300)


@pytest.mark.parametrize(
    ("count", "steps", "starts"),
    [
        (10, {"window": 4}, [0, 4, 8]),
        (8, {"window": 4}, [0, 4]),
        (3, {"window": 4}, [0]),
        (10, {"window": 4, "tail": "drop"}, [0, 4]),
        (10, {"window": 4, "hop": 3}, [0, 3, 6]),
        (10, {"window": 4, "hop": 3, "tail": "start"}, [0, 3, 6, 9]),
        (10, {"window": 6, "hop": 4, "lead": 2}, [-2, 2, 6]),
        (10, {"window": 2, "hop": 4}, [0, 4, 8]),
    ],
)
def test_windows_begin_where_they_should(count: int, steps: dict[str, object], starts: list[int]) -> None:
    found = rows(file(SOUND[:count]), **steps)
    padded = dict(enumerate(SOUND[:count]))
    size = int(str(steps["window"]))
    np.testing.assert_array_equal(found, [[padded.get(at, 0) for at in range(start, start + size)] for start in starts])


def test_scale_and_whole_numbers() -> None:
    found = rows(file(SOUND, subtype="PCM_16"), scale=32768, datatype="INT16")
    expected = soundfile.read(io.BytesIO(file(SOUND, subtype="PCM_16")), dtype="int16")[0]
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, expected[None])


def test_rows_are_standardised_with_their_silence() -> None:
    found = rows(file(), length=2000, standardise=True)[0]
    assert abs(float(found.mean())) < 1e-6
    assert abs(float(found.std()) - 1) < 1e-5


@pytest.mark.parametrize(
    ("layout", "shape", "expected"),
    [
        ("NS", FREE, (1, 1600)),
        ("N1S", ("n", 1, "s"), (1, 1, 1600)),
        ("NS1", ("n", "s", 1), (1, 1600, 1)),
        ("S", ("s",), (1600,)),
    ],
)
def test_layouts(layout: str, shape: tuple[int | str, ...], expected: tuple[int, ...]) -> None:
    assert rows(file(), layout=layout, shape=shape).shape == expected


@pytest.mark.parametrize(
    ("layout", "shape"),
    [("NMT", (1, 80, 10)), ("NTM", (1, 10, 80)), ("N1MT", (1, 1, 80, 10)), ("N1TM", (1, 1, 10, 80))],
)
def test_layouts_of_spectrograms(layout: str, shape: tuple[int, ...]) -> None:
    spectrogram = LogMelSpectrogram(normalisation="whisper", layout=layout)  # type: ignore[arg-type]  # one of them
    assert rows(file(), shape=("n", *shape[1:]), spectrogram=spectrogram).shape == shape


def test_constants_have_their_value_in_the_shape_that_the_graph_wants() -> None:
    others = (
        TensorSpec("sr", "INT64", ()),
        TensorSpec("lengths", "INT32", ("batch",)),
        TensorSpec("h", "FP32", (2, "batch", 3)),
        TensorSpec("mask", "FP32", ("batch", "other")),
    )
    constants = (
        ConstantInput(input="sr", value=16_000),
        ConstantInput(input="lengths", value="length"),
        ConstantInput(input="h"),
        ConstantInput(input="mask", value=1),
    )
    found = feeds(model(others=others, constants=constants, length=300), file(), file(SOUND[:100]))
    assert {name: (array.dtype.name, array.tolist()) for name, array in found.items() if name != "x"} == {
        "sr": ("int64", 16_000),
        "lengths": ("int32", [300, 100]),
        "h": ("float32", np.zeros((2, 2, 3)).tolist()),
        "mask": ("float32", [[1.0], [1.0]]),
    }


def test_windows_with_a_state_are_run_in_order() -> None:
    state = TensorSpec("state", "FP32", (2, "batch", 4))
    manifest = model(others=(state,), states=(StateInput(input="state", output="next"),), window=400)
    found = feeds(manifest, file())
    assert found["x"].shape == (4, 400)
    assert found["state"].shape == (2, 1, 4)
    sent = {"audio": np.array([file()], object)}
    recurrence = processing.find_recurrence(manifest, sent)
    assert recurrence is not None
    assert (recurrence.input, dict(recurrence.states)) == ("x", {"state": "next"})
    raw = {"x": np.zeros((3, 400), np.float32), "state": np.zeros((2, 3, 4), np.float32)}
    assert processing.find_recurrence(manifest, raw) is None


def test_windows_for_a_graph_of_one_row_are_run_in_order() -> None:
    manifest = model(shape=(1, 400), window=400)
    assert feeds(manifest, file())["x"].shape == (4, 400)
    assert processing.find_recurrence(manifest, {"audio": np.array([file()], object)}) is not None


def test_the_steps_must_give_all_inputs_of_the_graph() -> None:
    with pytest.raises(InvalidInputError, match=r"prepares the inputs \['x'\], but the graph has \['x', 'sr'\]"):
        model(others=(TensorSpec("sr", "INT64", ()),))
    with pytest.raises(InvalidInputError, match=r"carries the outputs \['z'\]"):
        model(others=(TensorSpec("h", "FP32", (1,)),), states=(StateInput(input="h", output="z"),), window=4)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"length": 3, "window": 3}, "keep one"),
        ({"hop": 3}, "no 'window'"),
        ({"constants": (ConstantInput(input="x"),)}, "gives an input twice"),
    ],
)
def test_contradicting_steps_are_refused(steps: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AudioPreprocessing(input="x", rate=16_000, **steps)  # type: ignore[arg-type]  # by name


def test_what_is_no_sound_is_said_with_its_place() -> None:
    good = file()
    assert refuse(good, b"%PDF-1.7") == ("Audio 1 is no WAV, FLAC, OGG or MP3: its 8 bytes start with b'%PDF-1.7'.")
    assert refuse(b"") == "Audio 0 is no WAV, FLAC, OGG or MP3: its 0 bytes start with b''."
    assert refuse(b"\xff\xd8\xff\xe0").startswith("Audio 0 is no WAV")
    others = {b"\0\0\0\x20ftypM4A ": "M4A", b"FORM": "AIFF", b"\x1aE\xdf\xa3": "WebM", b"\xff\xf1P": "AAC"}
    for start, name in others.items():
        assert f"{name}" in refuse(start)
        assert refuse(start).endswith("; convert it to WAV, FLAC, OGG or MP3.")
    assert refuse(b"fLaC" * 20) == ("Audio 0 is damaged, or no FLAC, OGG or MP3 file: unknown error in flac decoder.")
    assert refuse(b"OggS" * 20).startswith("Audio 0 is damaged, or no FLAC, OGG or MP3 file: ")
    assert refuse(b"\xff\xfb\x90\x64") == "Audio 0 is damaged, or no FLAC, OGG or MP3 file: Format not recognised."
    cut = file(SOUND, kind="MP3", subtype="MPEG_LAYER_III")[:100]
    assert refuse(cut) == "Audio 0 is damaged, or no FLAC, OGG or MP3 file: it has no frames."
    assert refuse("a:b").startswith("Audio 0 is not base64, which JSON needs for bytes")
    assert refuse(file(SOUND[:0])) == "Audio 0 has no samples."
    assert refuse(good[:-8]) == "Audio 0 is cut off: it promises 6,400 bytes of samples, and has 6,392."
    assert refuse(file(rate=500)) == "Audio 0 has 500 samples a second; 1,000 to 768,000 are read."
    assert refuse(file(np.zeros((9, 65), np.float32))) == "Audio 0 has 65 channels, more than 64."
    assert refuse(file(np.array([0, np.nan], np.float32))) == ("Audio 0 has samples that are infinite or no numbers.")
    assert refuse(good, file(SOUND[:7])).startswith("Audio 1 has 7 samples and audio 0 has 1,600, at 16,000 a second")
    assert refuse(good, good, window=100).startswith("The request has 2 audio files")
    assert refuse(file(SOUND[:7]), window=8, tail="drop") == "Audio 0 has 7 samples, less than one window of 8."
    short = refuse(file(SOUND[:100]), spectrogram=LogMelSpectrogram(), shape=("n", 80, "t"))
    assert short == "Audio 0 has 100 samples, too few for a spectrogram with frames of 400."


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_damaged_file_is_read_or_refused_with_its_place(kind: str, part: float) -> None:
    subtype = {"FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}[kind]
    whole = file(np.tile(SOUND, 20), kind=kind, subtype=subtype)
    noise = np.random.default_rng(3).integers(0, 256, 40, np.uint8).tobytes()
    at = int(len(whole) * part)
    for damaged in (whole[:at], whole[:at] + noise + whole[at + 40 :]):
        outcome = read_or_refuse(damaged)
        assert outcome == "float32" or outcome.startswith("Audio 0 ")
    if kind == "FLAC":
        assert "Audio 0 is" in refuse(whole[:at])


def test_what_is_too_long_is_refused_before_it_is_decoded() -> None:
    flac = file(np.zeros(16_000 * 60, np.float32), kind="FLAC", subtype="PCM_16")
    assert len(flac) < 30_000
    assert refuse(flac, flac, max_seconds=100) == (
        "The request's audio files have 120.0 s together (60.0 s, 60.0 s), more than 100.0; send shorter or fewer ones."
    )
    with pytest.raises(TooLargeError, match="rows of 8,000 samples, more than 30,000,000"):
        rows(file(np.zeros(16_000, np.float32)), window=8000, hop=1)
    with pytest.raises(TooLargeError, match="The request has 1,001 audio files; send 1,000 at most at once"):
        rows(*[file(SOUND[:1])] * 1001)
    wide = file(np.zeros((600_000, 8), np.float32), 48_000, "FLAC", "PCM_16")
    with pytest.raises(TooLargeError, match="38,400,000 samples of all channels together"):
        rows(*[wide] * 8)
    slow = file(np.zeros(100_000, np.float32), 1000, "FLAC", "PCM_16")
    with pytest.raises(TooLargeError, match="76,800,000 samples at 768,000 a second together"):
        rows(slow, rate=768_000)
