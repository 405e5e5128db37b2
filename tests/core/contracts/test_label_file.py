"""Files of labels as people have them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.contracts.label_file import read_label_file
from pilotlight.errors import InvalidInputError

PETS = ("cat", "d\u00f6g")


@pytest.mark.parametrize(
    "content",
    [
        "cat\nd\u00f6g\n".encode(),
        "cat\r\nd\u00f6g\r\n".encode(),
        "cat\rd\u00f6g\r".encode(),
        "cat\nd\u00f6g".encode(),
        "\ufeffcat\r\nd\u00f6g\r\n\r\n  \r\n".encode(),
        "cat\r\nd\u00f6g\r\n".encode("utf-16"),
        "\ufeffcat\r\nd\u00f6g\r\n".encode("utf-16-be"),
        "cat\nd\u00f6g\n".encode("utf-32"),
        '["cat", "d\u00f6g"]'.encode(),
        '{"1": "d\u00f6g", "0": "cat"}'.encode(),
        '\ufeff{"id2label": {"0": "cat", "1": "d\u00f6g"}, "model_type": "vit"}'.encode(),
        '{"label2id": {"cat": 0, "d\u00f6g": 1}}'.encode(),
        '{"d\u00f6g": 1, "cat": 0}'.encode(),
    ],
)
def test_usual_forms_give_the_same_names(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_label_file(tmp_path / "labels.txt") == PETS


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("n01440764 tench, Tinca tinca\nn01443537 goldfish\n", ("n01440764 tench, Tinca tinca", "n01443537 goldfish")),
        ("a\u2028b\nc\x0bd\ne\x85f\n", ("a\u2028b", "c\x0bd", "e\x85f")),
        ("{braces\n[brackets\n", ("{braces", "[brackets")),
        ("a\nb\n \n", ("a", "b", " ")),
        (" cat\ndog \n", (" cat", "dog ")),
    ],
)
def test_lines_stay_as_they_are(tmp_path: Path, text: str, labels: tuple[str, ...]) -> None:
    (tmp_path / "classes.txt").write_bytes(text.encode())
    assert read_label_file(tmp_path / "classes.txt") == labels


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"cat\n\ndog\n", "labels.txt is blank in line 2; each line names a class"),
        (b"cat\r\n\t\r\ndog\r\n", "labels.txt is blank in line 2"),
        (b"", "has no labels"),
        (b"\n\n", "has no labels"),
        (b"k\xe4se\n", "cannot be read as text: it is not UTF-8 at byte 1; save it as UTF-8"),
        (b"\xff\xfec\x00a", "cannot be read as text: it is not UTF-16"),
        ("cat\n".encode("utf-16-le"), "it has zero bytes"),
        (b'{"0": "cat", "2": "dog"}', "has 2 labels, but none of index 1"),
        (b'{"a": "b"}', "has a name without a whole number as its index"),
        (b"[[1]]", "is JSON, but neither a list of names"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(InvalidInputError) as caught:
        read_label_file(tmp_path / "labels.txt")
    assert said in str(caught.value)


NAMES = st.lists(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1)
                 .filter(lambda name: bool(name.strip())), min_size=1, max_size=8)  # fmt: skip


@given(NAMES, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], end: str, encoding: str
) -> None:
    names = [f"x{name}" for name in names]  # which does not begin as JSON, or with a mark of its own
    path = tmp_path_factory.getbasetemp() / "written.txt"
    path.write_bytes("".join(name + end for name in names).encode(encoding))
    assert read_label_file(path) == tuple(names)
