"""Folders of images: pixels once and in 8 bits, or in their files; and a model of them takes photos, answers names."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from functions.predict.handler import build_predict_handler
from functions.train.__main__ import main
from functions.train.data import image_folders
from functions.train.data.dataset import Dataset
from functions.train.data.files import DataFile, DataRoot
from functions.train.data.image_folders import read_images
from functions.train.data.load import load_dataset, load_splits
from functions.train.data.loader import compute_batch_sizes, draw_order, load_batches
from functions.train.data.memory import UNKNOWN, measure_available_memory
from functions.train.data.pixels import FilePixels, MemoryPixels, Pixels, iterate_chunks
from functions.train.data.statistics import compute_moments
from pilotlight.contracts.processing import ClassificationPostprocessing, ImagePreprocessing
from pilotlight.errors import InvalidInputError, StoreError
from pilotlight.recipes.data_schema import ImageOptions, UserDataOptions
from pilotlight.recipes.schema import load_recipe
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.functions.train.training.test_checkpoint import StopAt, assert_same, stopped, trained

if TYPE_CHECKING:
    from functions.train.data.split import Splits

ROOT = Path(__file__).parents[4]
FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}
ORIENTATION = 0x112  # EXIF's tag
RIGHT = 6  # turned a quarter to the right


def draw(seed: int, kind: str, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """An image of noise with stripes: upright in one class, level in the other; wider than high."""
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 100, (height, width, 3))
    axis = 0 if kind == "level" else 1
    stripes = np.indices((height, width))[axis] * 5 // (height, width)[axis] % 2 * 150
    return Image.fromarray((noise + stripes[..., None]).astype(np.uint8))


def fill(folder: Path, count: int = 60, first: int = 0, size: tuple[int, int] = (20, 16)) -> Path:
    """Write images in two classes as people have them: PNG and JPEG, deep folders, capitals, and some on their side."""
    for number in range(first, first + count):
        kind = "level" if number % 2 else "upright"
        place = folder / kind / ("deep/er" if number % 5 == 0 else "")
        place.mkdir(parents=True, exist_ok=True)
        picture, exif = draw(number, kind, size), Image.Exif()
        if number % 3 == 0:
            exif[ORIENTATION] = RIGHT
            picture = picture.transpose(Image.Transpose.ROTATE_90)  # as a camera that is held upright stores it
        suffix = (".png", ".jpg", ".JPEG", ".PNG")[number % 4]
        picture.save(place / f"{number:04}{suffix}", exif=exif)
    return folder


def options(**words: Any) -> UserDataOptions:  # noqa: ANN401 - a recipe's values
    known = {"path": "images", "fractions": FRACTIONS, "calibration": 10}
    return UserDataOptions.model_validate_json(json.dumps(known | words))


def read(folder: Path, **words: Any) -> Dataset:  # noqa: ANN401
    return load_dataset(options(**words), DataRoot(folder))


def pixels_of(dataset: Dataset) -> Pixels:
    assert isinstance(dataset.inputs, Pixels)
    return dataset.inputs


def test_pixels_are_held_once_whatever_is_selected(tmp_path: Path) -> None:
    fill(tmp_path / "images")
    splits = load_splits(options(), DataRoot(tmp_path))
    held = [part.inputs for part in (splits.train, splits.validation, splits.test, splits.calibration)]
    assert all(isinstance(one, MemoryPixels) for one in held)
    assert {id(one.pixels) for one in held} == {id(held[0].pixels)}
    assert held[0].pixels.dtype == np.uint8
    assert held[0].pixels.shape == (60, 3, 16, 20)  # upright: as they were drawn
    assert (held[0].dtype, held[0].ndim, held[0].shape) == (np.float32, 4, (36, 3, 16, 20))


def test_streamed_images_are_those_in_memory(tmp_path: Path) -> None:
    fill(tmp_path / "images")
    memory, files = (load_splits(options(streaming=streaming), DataRoot(tmp_path)) for streaming in (False, True))
    assert isinstance(files.train.inputs, FilePixels)
    for name in ("train", "validation", "test", "calibration"):
        ours, theirs = getattr(memory, name), getattr(files, name)
        assert ours.sha256 == theirs.sha256
        assert np.array_equal(np.asarray(ours.inputs), np.asarray(theirs.inputs))
        assert np.array_equal(ours.statistics.input_moments.mean, theirs.statistics.input_moments.mean)
    assert memory.sha256 == files.sha256
    torch.manual_seed(0)
    order, sizes = draw_order(memory.train, 7), compute_batch_sizes(36, 7)
    cpu = torch.device("cpu")
    for start in range(len(sizes)):
        pairs = zip(*(load_batches(one.train, order, 7, cpu, start) for one in (memory, files)), strict=True)
        for place, ((inputs, targets), (other_inputs, other_targets)) in enumerate(pairs, start):
            assert inputs.dtype == torch.float32
            assert len(inputs) == sizes[place]
            assert torch.equal(inputs, other_inputs)
            assert torch.equal(targets, other_targets)


def test_hash_is_that_of_float32_as_documented(tmp_path: Path) -> None:
    fill(tmp_path / "images", 12)
    found = read(tmp_path)
    whole = Dataset(np.asarray(found.inputs), found.targets, found.classes)
    assert found.sha256 == whole.sha256
    assert np.asarray(found.inputs).dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 6), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_moments_are_those_of_the_whole(count: int, channels: int, side: int, top: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, top, (count + 2, channels, side, side), np.uint8, endpoint=True)
    chosen = np.random.default_rng(seed).permutation(count + 2)[:count]
    found = MemoryPixels.hold(images).select(chosen).compute_moments()
    expected = compute_moments(images[chosen].astype(np.float64))
    assert found.mean == pytest.approx(expected.mean, abs=1e-4)
    assert found.deviation == pytest.approx(expected.deviation, abs=1e-4)


def test_chunks_are_the_whole_and_bounded() -> None:
    images = np.random.default_rng(0).integers(0, 256, (11, 3, 4, 5), np.uint8)
    held = MemoryPixels.hold(images, np.array([3, 1, 10, 0]))
    parts = list(iterate_chunks(held, 2 * 60))
    assert [len(part) for part in parts] == [2, 2]
    assert np.array_equal(np.concatenate(parts), images[[3, 1, 10, 0]].astype(np.float32))
    assert held[-1].tolist() == images[0].tolist()
    assert np.array_equal(held[:, 1, 2:], images[[3, 1, 10, 0]][:, 1, 2:].astype(np.float32))


def test_more_than_a_share_of_the_memory_is_streamed_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "images", 12)
    assert "images: 0 MB of pixels are in memory" in read(tmp_path).notes
    monkeypatch.setattr(image_folders, "measure_available_memory", lambda: 4 * 12 * 3 * 16 * 20 - 4)
    found = read(tmp_path)
    assert isinstance(found.inputs, FilePixels)
    assert any(
        "are decoded from their files in each pass, since 0 MB of memory are free" in note for note in found.notes
    )


def test_memory_is_the_smaller_of_the_machine_and_its_container(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  5000 kB\n")
    assert measure_available_memory(tmp_path / "meminfo", tmp_path) == 5000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert measure_available_memory(tmp_path / "meminfo", tmp_path) == 5000 * 1024
    (tmp_path / "memory.max").write_text("4096\n")
    assert measure_available_memory(tmp_path / "meminfo", tmp_path) == 4096
    assert measure_available_memory(tmp_path / "none", tmp_path / "none") == UNKNOWN


@pytest.mark.parametrize(
    "change",
    [lambda file: draw(99, "level").save(file), lambda file: file.write_bytes(b"cut"), lambda file: file.unlink()],
)
def test_image_that_changes_while_it_is_streamed_is_refused(tmp_path: Path, change: Callable[[Path], object]) -> None:
    fill(tmp_path / "images", 12)
    found = read(tmp_path, streaming=True)
    file = next((tmp_path / "images/level").glob("*.jpg"), None) or next((tmp_path / "images/level").rglob("*.JPEG"))
    change(file)
    with pytest.raises(
        StoreError, match=rf"The image level/.*{file.name} is not what it was when this run first read it"
    ):
        pixels_of(found)[:]


def recipe(*words: str) -> Any:  # noqa: ANN401
    return load_recipe("digits", ["name=pictures", "epochs=3", "batch_size=8", "model.channels=[4, 8]", *words])


@pytest.mark.parametrize("streaming", [False, True])
def test_killed_run_over_images_ends_with_the_same_weights(tmp_path: Path, streaming: bool) -> None:
    fill(tmp_path / "images")
    splits: Splits = load_splits(options(streaming=streaming), DataRoot(tmp_path))

    whole = trained(recipe(), splits)
    for step in (1, 7, 12):
        assert_same(trained(recipe(), splits, StopAt(0, stopped(recipe(), splits, step))), whole)


def test_first_folder_is_the_class_at_any_depth(tmp_path: Path) -> None:
    fill(tmp_path / "images")
    assert read(tmp_path).classes == ("level", "upright")
    assert any(path.parent.name == "er" for path in (tmp_path / "images").rglob("*.*"))


def test_other_formats_are_counted_and_told(tmp_path: Path) -> None:
    fill(tmp_path / "images", 12)
    for number, suffix in enumerate((".tiff", ".tiff", ".bmp", ".GIF")):
        draw(number, "level").save(tmp_path / "images/level" / f"x{number}{suffix}")
    (tmp_path / "images/level/notes.txt").write_text("no image")
    said = "left out 4 files that are neither PNG, JPEG nor WebP (1 .bmp, 1 .gif, 2 .tiff)"
    assert any(note.startswith(said) for note in read(tmp_path).notes)
    assert len(read(tmp_path)) == 12
    for path in (tmp_path / "images").rglob("*.*"):
        if path.suffix.lower() in image_folders.EXTENSIONS:
            path.unlink()
    with pytest.raises(InvalidInputError, match=rf"images: {re.escape(said)}.*no other"):
        read(tmp_path)


def test_folders_are_classes_also_where_they_are_called_by_many_numbers(tmp_path: Path) -> None:
    fill(tmp_path / "0", 2)
    for number in range(1, 30):
        shutil.copytree(tmp_path / "0", tmp_path / "images" / str(number))
    assert len(read(tmp_path).classes) == 29
    assert read(tmp_path, task="number").classes == ()


def test_every_broken_image_is_counted_and_named(tmp_path: Path) -> None:
    fill(tmp_path / "images", 40)
    files = sorted((tmp_path / "images/level").glob("*.*"))
    files[0].write_bytes(b"")
    files[1].write_bytes(b"RIFF....WEBPVP8 ")
    files[2].write_bytes(files[2].read_bytes()[:300])
    with pytest.raises(InvalidInputError) as caught:
        read(tmp_path)
    text = str(caught.value)
    assert "object at" not in text
    assert text.startswith("3 of 40 images cannot be learned from; delete or mend them: level/")
    assert all(f"level/{file.name} cannot be read as PNG, JPEG or WebP: it " in text for file in files[:3])
    for file in files:
        file.write_bytes(b"x")
    with pytest.raises(InvalidInputError, match=r"16 of 40 images .*; and 6 more\."):
        read(tmp_path)


def test_an_image_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "images", 12)
    file = next((tmp_path / "images/level").rglob("*.*"))
    gone = DataFile(file.name, tmp_path / "nowhere.png")
    with pytest.raises(InvalidInputError, match=rf"The image {file.name} cannot be read: No such file or directory"):
        read_images([gone], ["level"], ImageOptions())


def test_folders_that_are_called_like_sets_are_no_classes(tmp_path: Path) -> None:
    fill(tmp_path / "images/train", 4)
    fill(tmp_path / "images/Test", 4, 4)
    with pytest.raises(
        InvalidInputError, match=r"data\.path holds the folders Test, train, which are called like sets"
    ):
        read(tmp_path)


def test_groups_of_images_stay_together(tmp_path: Path) -> None:
    for number in range(60):
        kind = "level" if number % 2 else "upright"
        place = tmp_path / "images" / kind / f"p{number // 4}"
        place.mkdir(parents=True, exist_ok=True)
        draw(number, kind).save(place / f"p{number // 4}_{number}.png")
    for rule in ("folder", "{group}_*"):
        splits = load_splits(options(group=rule), DataRoot(tmp_path))
        names = [set(np.asarray(part.keys.groups).tolist()) for part in (splits.train, splits.validation, splits.test)]
        assert sum(map(len, names)) == len(set.union(*names)) == 15
        assert any(
            "split by groups, none of which is in two sets: 9 train, 3 validation, 3 test" in note
            for note in splits.train.notes
        )
    with pytest.raises(
        InvalidInputError, match=r"data\.group is '\{group\}-x\*', which 60 of 60 images' names do not match"
    ):
        load_splits(options(group="{group}-x*"), DataRoot(tmp_path))


def trained_model(folder: Path, *words: str) -> Any:  # noqa: ANN401
    """Train on a folder with a test folder of its own; return the store's URL and the manifest."""
    data = f"data={{path: {folder}/images, test: {folder}/test, image: {{size: [12, 14]}}, calibration: 20, "
    data += "fractions: {train: 0.75, validation: 0.25}}"
    rest = ["quantization={scheme: static, budget: 100}", "epochs=12", "optimiser.learning_rate=0.01", *words]
    given = ["digits", "--store", str(folder / "store"), "--set", "name=stripes", "batch_size=8", data, *rest]
    assert main([*given, "model={architecture: cnn, channels: [4, 8], hidden: 16, dropout: 0.0}"]) == 0
    return str(folder / "store"), Registry(open_store(str(folder / "store"))).load_manifest("stripes", 1)


def test_photos_go_in_and_names_come_out_as_the_report_promises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "images", 80)
    fill(tmp_path / "test", 30, 100, (33, 25))
    url, manifest = trained_model(tmp_path)
    err = capsys.readouterr().err
    assert "target: the folder of an image: 2 classes (level, upright), as folders are" in err
    assert "sets with files of their own: test (30 examples)" in err
    assert isinstance(manifest.preprocess, ImagePreprocessing)
    assert manifest.preprocess.resize == (12, 14)
    assert (manifest.preprocess.scale, manifest.preprocess.colour) == (1.0, "RGB")
    assert isinstance(manifest.postprocess, ClassificationPostprocessing)
    assert (manifest.task, manifest.labels) == ("image", ("level", "upright"))
    handle = build_predict_handler(Settings(store=url, call_seconds=-1))

    def ask(path: str, body: Any) -> Any:  # noqa: ANN401
        answer = handle(fakes.event(handle._routes, "POST", path, json.dumps(body).encode()), None)
        assert answer["statusCode"] == 200, answer["body"]
        return json.loads(answer["body"])

    files = sorted(path for path in (tmp_path / "test").rglob("*.*"))
    photos = [base64.b64encode(path.read_bytes()).decode() for path in files]
    asked = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(photos)], "data": photos}]}
    answers = {one["name"]: one["data"] for one in ask("/v2/models/stripes/infer", asked)["outputs"]}
    right = [path.relative_to(tmp_path / "test").parts[0] for path in files]
    accuracy = np.mean([name == true for name, true in zip(answers["label"], right, strict=True)])
    assert accuracy == pytest.approx(manifest.variants[manifest.serve].metrics["accuracy"])
    assert accuracy > 0.8  # and so the test is one
    mlflow = ask("/invocations", {"instances": photos[:3]})["predictions"]
    assert mlflow["label"] == answers["label"][:3]
    # the pixels of training as a tensor: the same logits that the photo gives when asked for
    held = read(tmp_path, path="test", image={"size": [12, 14]})
    tensor = np.asarray(held.inputs)[:4]
    raw = {"name": "image", "datatype": "FP32", "shape": list(tensor.shape), "data": tensor.ravel().tolist()}
    (logits,) = ask("/v2/models/stripes/infer", {"inputs": [raw]})["outputs"]
    assert logits["name"] == "logits"
    (again,) = ask("/v2/models/stripes/infer", asked | {"outputs": [{"name": "logits"}]})["outputs"]
    names = [path.relative_to(tmp_path / "test").as_posix() for path in files]
    in_order = sorted(range(len(files)), key=names.__getitem__)[:4]
    assert np.reshape(again["data"], (-1, 2))[in_order] == pytest.approx(np.reshape(logits["data"], (-1, 2)), abs=1e-4)


def test_grey_model_makes_photos_grey(tmp_path: Path) -> None:
    fill(tmp_path / "images", 10)
    held = read(tmp_path, image={"mode": "grey", "size": 10})
    assert held.image_steps is not None
    assert (held.image_steps.colour, held.image_steps.resize) == ("L", (10, 10))
    assert held.inputs.shape == (10, 1, 10, 10)


PEAK = """
import sys
from pathlib import Path
import functions.train.pipeline
from functions.train.data import readers
from functions.train.data.files import DataRoot
from functions.train.data.load import load_splits
from functions.train.data.loader import load_batches, draw_order
from functions.train.training.prediction import predict_outputs
from pilotlight.recipes.data_schema import SplitFractions, UserDataOptions
import torch
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
def pass_over(path, streaming):
    options = UserDataOptions(path=path, fractions=SplitFractions(train=0.5, validation=0.25, test=0.25),
                              streaming=streaming, calibration=5)
    splits = load_splits(options, DataRoot(Path(sys.argv[1])))
    network = torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Flatten(), torch.nn.LazyLinear(2))
    network(torch.from_numpy(splits.train.inputs[:1]))
    splits.train.statistics, splits.test.sha256, predict_outputs(network, splits.test.inputs)
    for inputs, targets in load_batches(splits.train, draw_order(splits.train, 16), 16, torch.device("cpu")):
        network(inputs)
pass_over("few", False)
before = peak()
for streaming in (True, False):  # the larger peak last
    pass_over("many", streaming)
    print(peak() - before)
"""


@pytest.mark.slow
def test_peak_is_the_pixels_once_or_less_where_they_are_streamed(tmp_path: Path) -> None:
    side, count = 128, 500
    for folder, number in (("few", 24), ("many", count)):
        for each in range(number):
            place = tmp_path / folder / ("level" if each % 2 else "upright")
            place.mkdir(parents=True, exist_ok=True)
            draw(each, place.name, (side, side)).save(place / f"{each}.jpg")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers/core")])}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    streamed, held = (int(line) for line in done.stdout.split())
    pixels = count * side * side * 3  # 25 MB; as float32 98, and the former way held several of these
    assert streamed < 0.6 * pixels
    assert held < 1.6 * pixels
