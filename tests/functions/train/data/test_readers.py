"""Data of the user's own comes in as it is meant; what is wrong with it is one sentence with file, row and value."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from torch import nn

from functions.train import publish
from functions.train.data.cleaning import CleaningReport
from functions.train.data.dataset import Dataset
from functions.train.data.encoding import encode_table, name_encoded_columns
from functions.train.data.files import DataRoot
from functions.train.data.load import load_dataset, load_splits
from functions.train.export import golden
from functions.train.models import build
from functions.train.models.table_layers import FillMissing, OneHotEncode
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import UserDataOptions
from pilotlight.storage.object_store import open_store

ROWS = "".join(f"{n},{'red' if n % 3 else 'blue'},{n * 1.5},{'yes' if n % 2 else 'no'}\n" for n in range(40))
HEADER = "a,colour,b,label\n"


def options(**words: Any) -> UserDataOptions:  # noqa: ANN401 - a recipe's values
    known = {"path": "mine.csv", "target": "label", "fractions": {"train": 0.6, "validation": 0.2, "test": 0.2}}
    return UserDataOptions.model_validate_json(json.dumps(known | words))


def read(folder: Path, **words: Any) -> Dataset:  # noqa: ANN401
    return load_dataset(options(**words), DataRoot(folder))


def csv(folder: Path, text: str | bytes, **words: Any) -> Dataset:  # noqa: ANN401
    (folder / "mine.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(folder, **words)


def test_table_of_numbers_and_text(tmp_path: Path) -> None:
    table = csv(tmp_path, HEADER + ROWS)
    assert (table.inputs.shape, table.inputs.dtype) == ((40, 3), np.float32)
    assert table.classes == ("no", "yes")
    assert table.targets.tolist() == [n % 2 for n in range(40)]
    assert table.features == ("a", "colour", "b")
    assert table.categories == ((), ("blue", "red"), ())
    assert table.inputs[:4].tolist() == [[0, 0, 0], [1, 1, 1.5], [2, 1, 3], [3, 0, 4.5]]
    assert table.cleaning == CleaningReport(40, 0, 0, (), 0, ("colour",))
    assert [column.categories for column in publish.build_columns(table)] == [(), ("blue", "red"), ()]
    assert {column.missing for column in publish.build_columns(table)} == {None}  # a missing value is refused


@pytest.mark.parametrize(
    ("target", "words", "classes"),
    [
        (["3", "1", "2", "3"], {}, ("1", "2", "3")),
        (["0.5", "1.5", "2", "3"], {}, ()),
        (["1", "2", "3", "4"], {"task": "number"}, ()),
        (["0.5", "1.5", "1.5", "3"], {"task": "classes"}, ("0.5", "1.5", "3")),
        (["true", "false", "true", "true"], {}, ("false", "true")),
        (["b", "a", "b", "b"], {"classes": ("b", "a")}, ("b", "a")),
        (["b", "a", "b", "b"], {"classes": ("c", "b", "a")}, ("c", "b", "a")),
    ],
)
def test_target_is_understood(
    tmp_path: Path, target: list[str], words: dict[str, Any], classes: tuple[str, ...]
) -> None:
    text = "x,label\n" + "".join(f"{n},{value}\n" for n, value in enumerate(target))
    found = csv(tmp_path, text, **words)
    assert found.classes == classes
    assert found.metric == ("accuracy" if classes else "r2")
    if classes:
        assert [classes[index] for index in found.targets] == target
    else:
        assert found.targets.dtype == np.float32
        assert found.targets[:, 0] == pytest.approx([float(value) for value in target])


def test_many_whole_numbers_are_a_number(tmp_path: Path) -> None:
    assert csv(tmp_path, "x,label\n" + "".join(f"{n},{n}\n" for n in range(30))).classes == ()


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    text = "x,y,same,label\n1,2,7,a\n,2,7,a\n1,2,7,a\n3,inf,7,b\n3,4,7,b\n"
    found = csv(tmp_path, text)
    assert found.cleaning == CleaningReport(5, missing=2, duplicates=1, constant=("same",))
    assert found.inputs.tolist() == [[1, 2], [3, 4]]
    assert found.features == ("x", "y")


@pytest.mark.parametrize(("strategy", "filled"), [("mean", 4.0), ("median", 3.0)])
def test_gaps_are_filled_by_the_training_set_inside_the_model(tmp_path: Path, strategy: str, filled: float) -> None:
    text = "x,c,label\n1,u,a\n3,u,b\n8,v,a\n,u,b\n9,,b\n"
    found = csv(tmp_path, text, missing=strategy).select(np.array([0, 1, 2, 3]))
    assert found.cleaning is not None
    assert (found.cleaning.missing, found.cleaning.filled) == (0, 2)
    assert found.statistics.fill_values is not None
    assert found.statistics.fill_values.tolist() == [filled, 0]  # u is the most frequent of u and v
    front = nn.Sequential(*build.build_input_layers(found)[:2])
    raw = np.array([[np.nan, np.nan], [5, 1], [5, 7]], np.float32)
    expected = [[filled, 1, 0], [5, 0, 1], [5, 0, 0]]  # an unknown category is none of them
    assert front(torch.from_numpy(raw)).tolist() == expected
    assert encode_table(raw, found.categories, found.statistics.fill_values).tolist() == expected
    assert build.get_network_input_shape(found) == (3,)
    assert build.name_network_inputs(found) == name_encoded_columns(("x", "c"), ((), ("u", "v"))) == ("x", "c=u", "c=v")
    assert [column.missing for column in publish.build_columns(found)] == ["nan", "u"]
    assert np.isfinite(golden.keep_complete_examples(found).inputs).all()


def test_fill_and_spread_leave_the_rest_alone() -> None:
    table = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert torch.equal(FillMissing(np.array([9.0, 9.0]))(table), table)
    assert torch.equal(OneHotEncode(((), ()))(table), table)


MISTAKES = [
    ("", {}, "mine.csv cannot be read as CSV: Empty CSV file"),
    (HEADER, {}, "mine.csv has no rows"),
    (HEADER + ROWS + "1,2\n", {}, "mine.csv, row 41 has 2 values, and its header names 4: '1,2'"),
    (HEADER + "1,red,2,\n" + ROWS, {}, "mine.csv, row 1: the target 'label' is missing"),
    (HEADER + "3x,red,1,no\n" + ROWS, {}, "mine.csv, row 1: column 'a' says '3x', where others say numbers"),
    (HEADER + ROWS, {"target": "price"}, "data.target is 'price'; mine.csv has the columns a, colour, b, label"),
    (HEADER + ROWS, {"features": ["z"]}, "data.features is 'z'; mine.csv has"),
    (HEADER + ROWS, {"drop": ["z"]}, "data.drop is 'z'; mine.csv has"),
    (HEADER + ROWS, {"drop": ["a", "b", "colour"]}, "mine.csv has no column left to learn from"),
    (HEADER + ROWS, {"task": "number"}, "mine.csv, row 1: the target is 'no'; data.task is number"),
    (HEADER + ROWS, {"classes": ("yes", "maybe")}, "row 1: the target is 'no', and data.classes has only yes, maybe"),
    ("a,label\n1,x\n2,x\n", {}, "mine.csv: the target is 'x' in every row; there is nothing to learn"),
    ("a,label\n1,5.5\n2,5.5\n", {}, "mine.csv: the target is 5.5 in every row; there is nothing to learn"),
    ("a,label\n1,0.5\n2,inf\n", {}, "mine.csv, row 2: the target is inf"),
    ("a,a,label\n1,2,x\n", {}, "mine.csv has 2 columns that are called 'a'"),
    ("a,label\n2020-01-01,x\n2020-01-02,y\n", {}, "column 'a' holds date32[day], neither numbers nor text"),
    (b"a,label\n\xff,x\nb,y\n", {}, "mine.csv: column 'a' is not in UTF-8; save the file as UTF-8"),
    (b"a,label\n1,\xff\n2,y\n", {}, "mine.csv: column 'label' is not in UTF-8; save the file as UTF-8"),
    (b"l\xe4nge,label\n1,x\n2,y\n", {}, "mine.csv: its header is not in UTF-8; save the file as UTF-8"),
    (b"\xff\xfea\x00,\x00l", {}, "mine.csv begins as UTF-16 and is none; save the file as UTF-8"),
    (",a,label\n0,1,x\n0,2,y\n", {}, "column 1 has no name; give it one, or leave it out by data.drop: ['']"),
    ("a,b,label\n1,,x\n2,,y\n", {}, "Nothing is left of mine.csv to learn from; 'b' is empty in every row"),
    (HEADER + ROWS, {"metric": "r2"}, "data.metric is 'r2', and the target 'label' is classes"),
    (HEADER + ROWS, {"target": "b", "metric": "accuracy"}, "data.metric is 'accuracy', and the target 'b' is a number"),
    ("a;label\n1;x\n", {}, "data.target is 'label'; mine.csv has the columns a;label"),
    ("a,label\n7,x\n7,y\n", {}, "Nothing is left of mine.csv to learn from"),
    ("a,label\n,x\n,y\n", {}, "Nothing is left of mine.csv to learn from"),
    ("a,label\n" + "".join(f"word{n},{n % 2}\n" for n in range(200)), {}, "holds 200 different texts"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words", "said"), MISTAKES, ids=[said for _, _, said in MISTAKES])
def test_mistake_in_a_table_is_one_sentence(
    tmp_path: Path, text: str | bytes, words: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        csv(tmp_path, text, **words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_other_delimiters_quotes_and_a_mark_of_byte_order(tmp_path: Path) -> None:
    text = '\ufeff"x";label\n1;"two\nlines"\n2;b\n3;b\n'
    found = csv(tmp_path, text, delimiter=";")
    assert (found.features, found.classes) == (("x",), ("b", "two\nlines"))


def test_shards_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name, rows in (("b.csv", "3,y\n"), ("a.csv", "1.5,x\n2,y\n"), ("deep/c.csv", "4,x\n"), (".hidden.csv", "z")):
        (tmp_path / name).write_text("a,label\n" + rows)
    assert read(tmp_path, path="*.csv").inputs[:, 0].tolist() == [1.5, 2, 3]
    assert read(tmp_path, path="**/*.csv").inputs[:, 0].tolist() == [1.5, 2, 3, 4]
    assert read(tmp_path, path=["b.csv", "deep/c.csv"]).inputs[:, 0].tolist() == [3, 4]
    assert read(tmp_path, path=str(tmp_path), format="csv").inputs[:, 0].tolist() == [1.5, 2, 3, 4]
    assert read(Path("/"), path=f"file://{tmp_path}/a.csv").inputs[:, 0].tolist() == [1.5, 2]
    (tmp_path / "b.csv").write_text("a,b,label\n3,1,y\n")
    with pytest.raises(InvalidInputError, match=r"b\.csv and a\.csv do not have the same columns: b"):
        read(tmp_path, path="*.csv")
    (tmp_path / "b.csv").write_text("a,label\n3,\n")
    with pytest.raises(InvalidInputError, match=r"b\.csv, row 1: the target 'label' is missing"):
        read(tmp_path, path="*.csv")


def test_store_is_a_place_too(tmp_path: Path) -> None:
    store = open_store("memory://")
    store.put("sets/one.csv", b"a,label\n1,x\n")
    store.put("sets/two.csv", b"a,label\n2,y\n")
    for path in ("store:sets/*.csv", ["store:sets/one.csv", "store:sets/two.csv"]):
        assert load_dataset(options(path=path), DataRoot(tmp_path, store)).inputs[:, 0].tolist() == [1, 2]
    assert len(load_dataset(options(path="store:sets", format="csv"), DataRoot(tmp_path, store))) == 2
    for path, said in (("store:sets/no.csv", "There is nothing at"), ("store:other/*.csv", "no file ends in .csv")):
        with pytest.raises(InvalidInputError, match=said):
            load_dataset(options(path=path), DataRoot(tmp_path, store))


@pytest.mark.usefixtures("aws_environment")
def test_bucket_is_a_place_too(tmp_path: Path, moto_url: str, bucket_url: str) -> None:
    store = open_store(f"{bucket_url}?endpoint={moto_url}")
    store.put("sets/one.csv", b"a,label\n1,x\n")
    store.put("sets/two.csv", b"a,label\n2,y\n")
    for path in ("sets/*.csv", "sets", "**/*.csv"):
        table = read(tmp_path, path=f"{bucket_url}/{path}?endpoint={moto_url}", format="csv")
        assert table.inputs[:, 0].tolist() == [1, 2]
    with pytest.raises(InvalidInputError, match="There is nothing at"):
        read(tmp_path, path=f"{bucket_url}/sets/three.csv?endpoint={moto_url}")


@pytest.mark.parametrize("path", ["nowhere.csv", "nowhere/*.csv", "ftp://host/mine.csv", "s3:/mine.csv"])
def test_missing_file_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidInputError, match=path.split("/")[0].replace(".", r"\.")):
        read(tmp_path, path=path)
    assert list(tmp_path.iterdir()) == []  # looking for a file makes no folder


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    expected = csv(tmp_path, HEADER + ROWS)
    table = pa.table(
        {
            "a": pa.array(range(40), pa.int16()),
            "colour": pa.array(["red" if n % 3 else "blue" for n in range(40)]).dictionary_encode(),
            "b": [n * 1.5 for n in range(40)],
            "label": [n % 2 == 1 for n in range(40)],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "mine.parquet")
    found = read(tmp_path, path="mine.parquet")
    assert found.sha256 == expected.sha256
    assert (found.classes, found.categories) == (("false", "true"), expected.categories)
    (tmp_path / "mine.parquet").write_bytes((tmp_path / "mine.parquet").read_bytes()[:-20])
    with pytest.raises(InvalidInputError, match=r"mine\.parquet cannot be read as Parquet"):
        read(tmp_path, path="mine.parquet")


def archive(folder: Path, **arrays: Any) -> Dataset:  # noqa: ANN401
    np.savez(folder / "mine.npz", **arrays)
    return read(folder, path="mine.npz")


def test_arrays_are_tables_or_images(tmp_path: Path) -> None:
    answers = np.arange(6) % 2
    table = archive(tmp_path, x=np.arange(12).reshape(6, 2), label=answers)
    assert (table.inputs.shape, table.features, table.inputs.dtype) == ((6, 2), ("x0", "x1"), np.float32)
    grey = archive(tmp_path, x=np.arange(54, dtype=np.uint8).reshape(6, 3, 3), label=answers)
    assert (grey.inputs.shape, np.asarray(grey.inputs).max()) == ((6, 1, 3, 3), 53)
    twice = archive(tmp_path, x=np.zeros((6, 3, 4, 4)), label=answers)
    assert twice.cleaning == CleaningReport(6, 0, 4, ())
    words = archive(tmp_path, x=np.arange(12).reshape(6, 2), label=np.array(list("bababa")))
    assert words.classes == ("a", "b")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.array([{}, None]), "label": np.arange(2)}, "it holds Python objects, which are never unpickled"),
        ({"x": np.eye(3), "label": np.array([1, None, 2])}, "it holds Python objects, which are never unpickled"),
        ({"x": np.eye(3), "label": np.array([0.5, np.nan, 1])}, "mine.npz, row 2: the target 'label' is nan"),
        ({"x": np.eye(3), "label": np.arange(2)}, "they must have the same number of examples"),
        ({"x": np.eye(3), "label": np.eye(3)}, "'label' is (3, 3); there must be one answer to an example, (N,)"),
        ({"x": np.zeros((0, 2)), "label": np.zeros(0)}, "they must have the same number of examples"),
        ({"x": np.eye(3), "y": np.arange(3)}, "mine.npz has no array 'label'; it has x, y"),
        ({"x": np.eye(3), "z": np.eye(3), "label": np.arange(3)}, "data.features must name the one to learn from"),
        ({"x": np.zeros((3, 8, 8, 3)), "label": np.arange(3)}, "images are (N, channels, height, width)"),
        ({"x": np.full((3, 1, 2, 2), np.nan), "label": np.arange(3)}, "mine.npz, row 1: the image holds values"),
        ({"x": np.array(["a", "b"])[:, None], "label": np.arange(2)}, "'x' holds <U1, no numbers"),
    ],
)
def test_mistake_in_an_archive_is_one_sentence(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        archive(tmp_path, **arrays)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_file_that_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"mine\.npz cannot be read as NPZ"):
        read(tmp_path, path="mine.npz")


def picture(path: Path, size: tuple[int, int] = (4, 3), mode: str = "L", value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16") else (value, 1, 2)).save(path)


def images(folder: Path, **words: Any) -> Dataset:  # noqa: ANN401
    return read(folder, path="animals", target=None, **words)


def test_folder_of_images(tmp_path: Path) -> None:
    for number in range(6):
        picture(tmp_path / "animals" / ("cat" if number % 2 else "dog") / f"{number}.png", value=10 * number)
    found = images(tmp_path)
    assert (found.inputs.shape, found.classes, found.features) == ((6, 1, 3, 4), ("cat", "dog"), ("grey",))
    assert found.inputs[:, 0, 0, 0].tolist() == [10, 30, 50, 0, 20, 40]
    assert found.targets.tolist() == [0, 0, 0, 1, 1, 1]
    picture(tmp_path / "animals/dog/9.jpg", mode="RGB", value=200)
    picture(tmp_path / "animals/dog/copy.png", value=40)
    coloured = images(tmp_path, image={"size": [2, 5], "mode": None})
    assert (coloured.inputs.shape, coloured.features) == ((7, 3, 2, 5), ("red", "green", "blue"))
    assert coloured.cleaning == CleaningReport(8, 0, 1, ())
    assert images(tmp_path, image={"size": 2, "mode": "grey"}).inputs.shape == (7, 1, 2, 2)


def test_images_stand_upright_as_they_do_when_they_are_served(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x112] = 6  # Orientation: a quarter to the right
    for name in ("cat", "dog"):
        picture(tmp_path / "animals" / name / "1.png", size=(3, 4), value=len(name))
        left = Image.new("L", (4, 3), 9 if name == "dog" else 5)
        left.save(tmp_path / "animals" / name / "2.png", exif=turned)
    assert images(tmp_path).inputs.shape == (4, 1, 4, 3)


def test_mistake_in_a_folder_of_images_is_one_sentence(tmp_path: Path) -> None:
    picture(tmp_path / "animals/cat/1.png")
    with pytest.raises(InvalidInputError, match="the target is 'cat' in every row"):
        images(tmp_path)
    picture(tmp_path / "animals/dog/2.png", size=(5, 3))
    with pytest.raises(InvalidInputError, match=r"cat/1\.png and dog/2\.png are 4 x 3 and 5 x 3 pixels; data\.image"):
        images(tmp_path)
    whole = io.BytesIO()
    Image.effect_noise((32, 32), 50).save(whole, "PNG")
    for broken in (b"no image", whole.getvalue()[:300], b""):
        (tmp_path / "animals/dog/2.png").write_bytes(broken)
        with pytest.raises(InvalidInputError, match=r"The image dog/2\.png cannot be read as PNG, JPEG or WebP: it "):
            images(tmp_path, image={"size": 4})
    picture(tmp_path / "animals/dog/2.png", mode="I;16")
    with pytest.raises(InvalidInputError, match=r"The image dog/2\.png has 16 bits for each channel; save it with 8"):
        images(tmp_path)
    picture(tmp_path / "animals/dog/2.png")
    picture(tmp_path / "animals/3.png")
    with pytest.raises(InvalidInputError, match=r"The image 3\.png lies in no sub-folder"):
        images(tmp_path)


def test_a_class_too_rare_for_the_split_is_named(tmp_path: Path) -> None:
    csv(tmp_path, HEADER + ROWS + "99,red,1,seldom\n")
    with pytest.raises(InvalidInputError) as caught:
        load_splits(options(), DataRoot(tmp_path))
    assert str(caught.value) == (
        "data.fractions.validation is too small: the class 'seldom' has no example left in that set, of 1 in all; data."
        "rare: keep, drop or merge takes rare classes."
    )


def test_calibration_that_is_left_open_takes_what_there_is(tmp_path: Path) -> None:
    csv(tmp_path, HEADER + ROWS)
    splits = load_splits(options(), DataRoot(tmp_path))
    assert len(splits.calibration) == len(splits.train) == 24


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"target": None}, "it must name what is to be answered"),
        ({"path": "folder"}, "of images that is the sub-folder"),
        ({"path": "mine.txt"}, "files that end in .txt are no one format"),
        ({"path": ["a.csv", "b.npz"]}, "files that end in .csv, .npz are no one format"),
        ({"streaming": True, "missing": "median"}, "a stream of tables takes no median"),
        ({"streaming": True, "group": "p"}, "a stream of tables takes no data.group, for which all must be in memory"),
        ({"task": "number", "metric": "accuracy"}, "data.task is number, whose metric is r2"),
        ({"task": "number", "classes": ["a", "b"]}, "data.task is number, which has none"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        options(**words)
