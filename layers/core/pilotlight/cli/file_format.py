"""Look at what a file is, by its first bytes and its name, before anything is imported or started for it.

ONNX files begin with a small protobuf field, so nothing here takes one for something else. What a converter may read
passes; for all else there is one sentence, which says what the file is and what to bring instead.
"""

import os
import re
from pathlib import Path
from shlex import quote

from pilotlight.errors import InvalidInputError
from pilotlight.runtime.booster_format import detect_booster

Description = tuple[str, str]  # what a file is, a noun or the rest of a sentence, and what to do instead
HEAD_BYTES = 4096  # of a file, which tell its format
BRING = (
    "bring an ONNX file, a Hugging Face checkpoint folder with safetensors, a language model in GGUF, a Triton model, "
    "a .pt2 file, a file that XGBoost, LightGBM or CatBoost saved, or file.py:NAME"
)
NO_ONNX = "is not an ONNX file: it is"
NO_GRAPH = "holds no ONNX graph: it is"
NO_PICKLE = "may hold a pickle, which runs whatever code its author put into it, and is not opened"
EXPORT_TORCH = "bring file.py:NAME, a function that gives the module, or what torch.onnx.export writes"
EXPORT_SKLEARN = "bring file.py:NAME, a function that loads it, or convert it with skl2onnx"
EXPORT_OPTIMUM = "export it with optimum-cli export onnx --model NAME FOLDER, and publish FOLDER"
# TensorFlow takes 2 GB and is not installed for publishing; tf2onnx runs where it is.
CONVERT_TENSORFLOW = (
    "where TensorFlow is: pip install tf2onnx, then python -m tf2onnx.convert {} --output model.onnx, and publish "
    "model.onnx"
)
TENSORFLOW_SOURCES = {  # what may be brought, and tf2onnx's words for it
    "a model of TensorFlow Lite": "--tflite {quoted}",
    "a SavedModel of TensorFlow": "--saved-model {quoted}",
    "part of a SavedModel of TensorFlow": "--saved-model {folder}",
    "a graph of TensorFlow": "--graphdef {quoted} --inputs NAME:0 --outputs NAME:0",
    "a model of TensorFlow.js": "--tfjs {quoted}/model.json",
}
TFLITE, SAVED_MODEL, SAVED_MODEL_PART, TENSORFLOW_GRAPH, TENSORFLOW_JS = (
    (f"is {what}, which is not read here", CONVERT_TENSORFLOW.format(source))
    for what, source in TENSORFLOW_SOURCES.items()
)
KERAS = (
    "is a model of Keras, which is not read here",
    'where Keras is: pip install tf2onnx, then python -c "import keras; keras.saving.load_model({path!r})'
    ".export('model.onnx', format='onnx')\", and publish model.onnx",
)
# By the first bytes; the first that fits counts.
MAGICS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", *KERAS),
    (b"\x1f\x8b", "compressed with gzip", "unpack it, and publish what is inside"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it, and publish what is inside"),
    (b"BZh", "compressed with bzip2", "unpack it, and publish what is inside"),
    (b"\xfd7zXZ\x00", "compressed with xz", "unpack it, and publish what is inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it, and publish what is inside"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it, and publish what is inside"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", "publish the model, and send images to it"),
    (b"\xff\xd8\xff", "a JPEG image", "publish the model, and send images to it"),
    (b"%PDF-", "a PDF document", "publish a model"),
    (b"\x93NUMPY", "an array of numpy", "publish a model, and send arrays to it"),
    (b"PAR1", "a Parquet table", "publish a model, and send tables to it"),
    (b"\x7fELF", "a program or library", "publish the model that it was made of"),
    (b"MZ", "a program or library of Windows", "publish the model that it was made of"),
    (b"ORTM", "a model in onnxruntime's own format", "publish the .onnx file that it was made of"),
)
SUFFIXES: dict[str, tuple[str, str]] = {
    ".joblib": (NO_PICKLE, EXPORT_SKLEARN),
    ".pkl": (NO_PICKLE, EXPORT_SKLEARN),
    ".pickle": (NO_PICKLE, EXPORT_SKLEARN),
    ".pt": (NO_PICKLE, EXPORT_TORCH),
    ".pth": (NO_PICKLE, EXPORT_TORCH),
    ".ckpt": (NO_PICKLE, EXPORT_TORCH),
    ".bin": (NO_PICKLE, EXPORT_OPTIMUM),
    ".safetensors": ("a file of weights without a graph", f"publish its folder with config.json, or {EXPORT_OPTIMUM}"),
    ".h5": KERAS,
    ".hdf5": KERAS,
    ".keras": KERAS,
    ".pb": TENSORFLOW_GRAPH,
    ".tflite": TFLITE,
    ".gguf": ("is called a GGUF file, and does not begin as one", "download it again"),
    ".mlmodel": ("a Core ML model", "publish the ONNX export of the model that it was made of"),
    ".ort": ("a model in onnxruntime's own format", "publish the .onnx file that it was made of"),
    ".engine": ("an engine of TensorRT", "publish the .onnx file that it was made of"),
    ".plan": ("an engine of TensorRT", "publish the .onnx file that it was made of"),
    ".data": ("external weights of an ONNX file", "publish the .onnx file, with these beside it"),
    ".onnx_data": ("external weights of an ONNX file", "publish the .onnx file, with these beside it"),
    ".skops": ("a model of skops", "write a function that loads it with skops, and publish file.py:NAME"),
    ".pmml": ("a PMML document", "publish the ONNX export of the model that it was made of"),
    ".npz": ("arrays of numpy", "publish a model; npz files are for --evaluation, --calibration and --sample"),
    ".npy": ("an array of numpy", "publish a model, and send arrays to it"),
    ".csv": ("a table", "train on it, or publish a model and send tables to it"),
    ".parquet": ("a table", "train on it, or publish a model and send tables to it"),
    ".py": ("Python code", "say which object of it: file.py:NAME"),
    ".ipynb": ("a notebook", "write a function into a .py file, and publish file.py:NAME"),
    ".yaml": ("a document", "a recipe is for `pilotlight train`; publish a model"),
    ".yml": ("a document", "a recipe is for `pilotlight train`; publish a model"),
}  # fmt: skip
FOLDERS: tuple[tuple[str, str, str], ...] = (
    ("saved_model.pb", *SAVED_MODEL),
    ("Manifest.json", "a Core ML package", "publish the ONNX export of the model that it was made of"),
    ("model.json", *TENSORFLOW_JS),
    ("flax_model.msgpack", "a Flax checkpoint", EXPORT_OPTIMUM),
)
# By a name of an entry; the first that is there counts.
ZIP_ENTRIES = (
    (b"data.pkl", ".pt"), (b".npy", ".npz"), (b"model.weights.h5", ".keras"), (b"metadata.json", ".keras"),
    (b"schema.json", ".skops"),
)  # fmt: skip
CONVERTED_ARCHIVES = {".pt2"}
CHECKPOINT_CONFIG = "config.json"  # of Hugging Face's folders, which are converted
LFS_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n.*?size (\d+)", re.DOTALL)
MARKUP = re.compile(rb"\s*(?:<!doctype\s+html|<html|<head|<body)", re.IGNORECASE)
PICKLE = re.compile(rb"\x80[\x02-\x05](?:\x95|[\x00-\x7f])|\(lp\d|\(dp\d|ccopy_reg\n")
TFLITE_PLACE = slice(4, 8)  # of the identifier in a FlatBuffer


def check_file_format(path: Path) -> None:
    """Raise `InvalidInputError` if the file or folder is surely no model that can be published; it reads 4 kB."""
    if path.is_dir():
        check_folder_format(path)
        return
    head, size = read_head(path)
    if description := None if path.suffix in CONVERTED_ARCHIVES else describe_content(head, size):
        raise build_format_error(path, NO_ONNX, description)


def check_file_name(path: Path) -> None:
    """Raise `InvalidInputError` for a file that is no ONNX file, and by its name or text none that is converted."""
    head, _ = read_head(path)
    if description := describe_suffix(path, head):
        raise build_format_error(path, NO_ONNX, description)


def read_head(path: Path) -> tuple[bytes, int]:
    """Read the first bytes of a file, and its size."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {path}: {exc.strerror}.") from exc


def build_format_error(path: Path, otherwise: str, description: Description) -> InvalidInputError:
    """Build the error of what is described; a noun comes behind `otherwise`, which says what it is not."""
    what, advice = description
    said = what if what.startswith(("is ", "may ")) else f"{otherwise} {what}"
    names = {"path": str(path), "quoted": quote(str(path)), "folder": quote(str(path.parent))}
    return InvalidInputError(f"{path} {said}; {advice.format(**names)}.")


def check_folder_format(folder: Path) -> None:
    """Refuse a folder that holds another tool's model."""
    try:
        names = {child.name for child in folder.iterdir()}
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {folder}: {exc.strerror}.") from exc
    has_graph = any(name.endswith(".onnx") for name in names) or names & {"onnx", "config.json"}
    for name, what, advice in FOLDERS:
        if name in names and not has_graph:
            raise build_format_error(folder, NO_GRAPH, (what, advice))


def check_folder_is_convertible(folder: Path) -> None:
    """Refuse a folder without a graph that holds nothing from which one is made."""
    if not (folder / CHECKPOINT_CONFIG).is_file():
        raise InvalidInputError(f"{folder} holds neither an ONNX graph nor a config.json; {BRING}.")


def describe_content(head: bytes, size: int) -> Description | None:
    """Describe a file that is no model by its first bytes, with advice; None if they do not tell."""
    if not size:
        return "empty, a file of 0 bytes", "export or download it again"
    if pointer := LFS_POINTER.match(head):
        what = f"a pointer of Git LFS to a file of {int(pointer[1]):,} bytes"
        return what, "run git lfs pull, or download the file itself"
    if MARKUP.match(head):
        return "an HTML page, as servers send instead of a file that needs a login", "download the file itself"
    if head[TFLITE_PLACE] == b"TFL3":
        return TFLITE
    for magic, what, advice in MAGICS:
        if head.startswith(magic):
            return what, advice
    if head.startswith(b"PK\x03\x04"):
        return describe_zip(head)
    if not head.strip(b"\0"):
        return f"zeros, {size:,} bytes", "download it again"
    return describe_text(head)


def describe_zip(head: bytes) -> Description:
    """Describe a zip archive by its first entries."""
    for entry, suffix in ZIP_ENTRIES:
        if entry in head:
            return SUFFIXES[suffix]
    return "a zip archive", "unpack it, and publish what is inside"


def describe_text(head: bytes) -> Description | None:
    """Describe JSON or XML; None if it is neither, or may be the model of a library that is converted."""
    if detect_booster(head):
        return None
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] in (b"{", b"["):
        return "JSON text", "publish an ONNX file, or a folder with one"
    if start.startswith(b"<"):
        return "XML text", "publish the ONNX export of the model"
    return None


def describe_suffix(path: Path, head: bytes) -> Description | None:
    """Describe a file that is no model by its name, as a pickle, or as text; None if none of these tells."""
    suffix = path.suffix.lower()
    if path.name == "saved_model.pb":
        return SAVED_MODEL_PART
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if suffix in CONVERTED_ARCHIVES:
        return None
    if PICKLE.match(head):
        return SUFFIXES[".pkl"]
    return ("text", "publish an ONNX file, or a folder with one") if is_text(head) else None


def is_text(head: bytes) -> bool:
    """Return whether the bytes are text, and not that of a library's model."""
    return detect_booster(head) is None and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head[:512])
