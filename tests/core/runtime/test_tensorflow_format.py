"""Models of TensorFlow and Keras: one sentence with the command that makes an ONNX file of them."""

from pathlib import Path

import pytest

from pilotlight.errors import InvalidInputError
from pilotlight.runtime.tensorflow_format import refuse_tensorflow


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("m.keras", r"m.keras'\).export\('model.onnx', format='onnx'\)\", and publish model.onnx\.$"),
        ("m.H5", "m.H5 is a model of Keras"),
        ("m.tflite", "python -m tf2onnx.convert --tflite .*m.tflite --output model.onnx"),
        ("saved/saved_model.pb", "tf2onnx.convert --saved-model .*saved --output model.onnx"),
    ],
)
def test_files(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InvalidInputError, match=said):
        refuse_tensorflow(tmp_path / name)


def test_a_folder(tmp_path: Path) -> None:
    refuse_tensorflow(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="is a SavedModel of TensorFlow"):
        refuse_tensorflow(tmp_path)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    refuse_tensorflow(tmp_path / "model.onnx")
    refuse_tensorflow(tmp_path / "nothing.h5")
