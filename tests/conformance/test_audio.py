"""Files of sound through HTTP: windows whose state is carried on, as real clients send them."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
import soundfile
import tritonclient.http as triton
from msgspec.structs import replace

from pilotlight.client.client import Client
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.processing import AudioPreprocessing, ConstantInput, StateInput
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.runtime.datatypes import Array
from pilotlight.storage.object_store import open_store
from tests import fakes

ROOT = Path(__file__).parents[2]
STEPS = AudioPreprocessing(
    input="samples",
    rate=8000,
    window=6,
    hop=4,
    lead=2,
    constants=(ConstantInput(input="gain", value=3),),
    states=(StateInput(input="sum", output="next"),),
)
SOUND = np.random.default_rng(0).uniform(-1, 1, 41).astype(np.float32)


def write(sound: Array, kind: str = "WAV", subtype: str = "FLOAT") -> bytes:
    target = io.BytesIO()
    soundfile.write(target, sound, 8000, format=kind, subtype=subtype)
    return target.getvalue()


def expect(sound: Array) -> Array:
    """Windows of 6 samples, 2 of them of the window before, and the running sum."""
    padded = np.pad(sound, (2, -len(sound) % 4))
    windows = [padded[start : start + 6] for start in range(0, len(padded) - 5, 4)]
    return np.asarray(3 * np.array(windows, np.float64).sum(axis=1).cumsum()[:, None])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = str(tmp_path_factory.mktemp("audio") / "store")
    specs = [TensorSpec(name, "FP32", ("batch", 1)) for name in ("sum", "total", "next")]
    inputs = (TensorSpec("samples", "FP32", ("batch", "time")), specs[0], TensorSpec("gain", "INT64", ()))
    draft = replace(fakes.draft("heard", inputs, tuple(specs[1:])), task="audio", preprocess=STEPS)
    Registry(open_store(store)).publish_version(draft, {"model.onnx": fakes.graph("running")})
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": store})
    with gateway.serve_in_background() as address:
        yield address


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "FLOAT"), ("WAV", "PCM_16"), ("FLAC", "PCM_24")])
@pytest.mark.parametrize("binary", [True, False])
def test_a_file_gives_a_row_for_each_window(url: str, kind: str, subtype: str, binary: bool) -> None:
    file = write(SOUND, kind, subtype)
    decoded = soundfile.read(io.BytesIO(file), dtype="float32")[0]
    sent = np.array([file if binary else base64.b64encode(file)], object)
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        given = triton.InferInput("audio", [1], "BYTES")
        given.set_data_from_numpy(sent, binary_data=binary)
        answer = client.infer("heard", [given])
        assert [output["name"] for output in answer.get_response()["outputs"]] == ["total"]
        np.testing.assert_allclose(answer.as_numpy("total"), expect(decoded), rtol=1e-5)


def test_the_state_is_given_to_who_asks_for_it(url: str) -> None:
    with Client(url) as client:
        answer = client.predict("heard", write(SOUND), outputs=["next"])
    assert answer.get_output("next").data == pytest.approx([expect(SOUND)[-1, 0]])


def test_the_graphs_own_tensors_are_taken_as_well(url: str) -> None:
    given = [
        {"name": "samples", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]},
        {"name": "sum", "shape": [2, 1], "datatype": "FP32", "data": [0, 5]},
        {"name": "gain", "shape": [], "datatype": "INT64", "data": [1]},
    ]
    answer = httpx2.post(f"{url}/v2/models/heard/infer", json={"inputs": given})
    assert [output["data"] for output in answer.json()["outputs"]] == [[3, 12], [3, 12]]


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (b"%PDF", 400, "Audio 0 is no WAV, FLAC, OGG or MP3: its 4 bytes start with b'%PDF'."),
        (write(SOUND)[:-4], 400, "Audio 0 is cut off: it promises 164 bytes of samples, and has 160."),
        (write(np.zeros(2_408_000), "FLAC", "PCM_16"), 413, "The request's audio files have 301.0 s together"),
    ],
)
def test_what_cannot_be_heard_is_said(url: str, sent: bytes, status: int, message: str) -> None:
    body = {"inputs": [{"name": "audio", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(sent).decode()]}]}
    answer = httpx2.post(f"{url}/v2/models/heard/infer", json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]
