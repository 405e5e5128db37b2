"""Tell TensorFlow's and Keras's files by name and first bytes, and name the command that makes an ONNX file of them.

TensorFlow takes 2 GB and is not installed for publishing; tf2onnx runs where it is.
"""

from pathlib import Path

from pilotlight.errors import InvalidInputError

KERAS_SUFFIXES = {".keras", ".h5", ".hdf5"}
KERAS_COMMAND = "keras.saving.load_model({name!r}).export('model.onnx', format='onnx')"


def refuse_tensorflow(path: Path) -> None:
    """Raise `InvalidInputError`, with the command that converts it, if PATH is a model of TensorFlow or Keras."""
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            raise build_error(path, "a SavedModel of TensorFlow", f"--saved-model {path}")
        return
    suffix = path.suffix.lower()
    if not path.is_file():
        return
    if suffix in KERAS_SUFFIXES:
        command = KERAS_COMMAND.format(name=str(path))
        raise InvalidInputError(
            f"{path} is a model of Keras, which is not read here; where Keras is: pip install tf2onnx, then "
            f'python -c "import keras; {command}", and publish model.onnx.'
        )
    if suffix == ".tflite":
        raise build_error(path, "a model of TensorFlow Lite", f"--tflite {path}")
    if path.name == "saved_model.pb":
        raise build_error(path, "part of a SavedModel of TensorFlow", f"--saved-model {path.parent}")


def build_error(path: Path, kind: str, source: str) -> InvalidInputError:
    """Build the error with tf2onnx's arguments."""
    return InvalidInputError(
        f"{path} is {kind}, which is not read here; where TensorFlow is: pip install tf2onnx, then "
        f"python -m tf2onnx.convert {source} --output model.onnx, and publish model.onnx."
    )
