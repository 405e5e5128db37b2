"""`~` at the start of a path, wherever no shell has expanded it."""

import sys
from pathlib import Path

import pytest

from functions.train.data.files import DataRoot, find_files
from pilotlight import cli
from pilotlight.cli.serve import resolve_store
from pilotlight.contracts.home_folder import expand_home
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.schema import find_recipe_file, list_builtin_recipes, load_recipe
from pilotlight.storage.object_store import open_store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("path", "tail"),
    [("~", ""), ("~/x", "/x"), ("~/x/", "/x/"), ("~/a b/ü", "/a b/ü")],
)
def test_home_is_expanded(home: Path, path: str, tail: str) -> None:
    assert expand_home(path) == f"{home}{tail}"
    assert expand_home(f"file://{path}") == f"file://{home}{tail}"


@pytest.mark.parametrize("path", ["x~", "./~/x", "/~/x", "s3://b/~/x", "", "memory://", "file:///~/x", "a/~"])
def test_other_paths_stay(path: str) -> None:
    assert expand_home(path) == path


def test_unknown_user_is_told() -> None:
    with pytest.raises(InvalidInputError, match="'~nobody-here/x' begins with a user's folder that there is not"):
        open_store("~nobody-here/x")


@pytest.mark.parametrize("url", ["~/store", "file://~/store"])
def test_store_in_the_home_folder(home: Path, url: str) -> None:
    open_store(url).put("a", b"1")
    assert (home / "store" / "a").read_bytes() == b"1"
    assert not Path("~").exists()
    assert open_store(url).url in (str(home / "store"), f"file://{home}/store")
    assert resolve_store(url) == url.replace("~", str(home))


def test_files_of_a_recipe(home: Path) -> None:
    (home / "data").mkdir()
    (home / "data" / "a.csv").write_text("x,y\n1,2\n")
    for path in ("~/data", "~/data/*.csv", "~/data/a.csv", "file://~/data/a.csv"):
        (found,) = find_files([path], DataRoot(Path("elsewhere")), [".csv"])
        assert Path(found.location) == home / "data" / "a.csv"


def test_recipe_in_the_home_folder_with_a_byte_order_mark(home: Path) -> None:
    text = list_builtin_recipes()["digits"].read_text("utf-8")
    (home / "mine.yaml").write_text("\ufeff" + text.replace("\n", "\r\n"), "utf-8", newline="")
    assert find_recipe_file("~/mine.yaml") == home / "mine.yaml"
    assert load_recipe("~/mine.yaml") == load_recipe("digits")


@pytest.mark.parametrize(
    ("argument", "expanded"),
    [
        ("--store=~/x", "--store={home}/x"),
        ("~/x", "{home}/x"),
        ("--store=file://~/x", "--store=file://{home}/x"),
        ("~", "{home}"),
        ("--reason=~50 % better", "--reason=~50 % better"),
        ("--set=data.path=~/x", "--set=data.path=~/x"),  # the recipe's reader expands it
        ("--json", "--json"),
        ("digits", "digits"),
    ],
)
def test_arguments_of_the_command(home: Path, argument: str, expanded: str) -> None:
    assert cli.expand_argument(argument) == expanded.format(home=home)


def test_command_with_a_store_in_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, variable in ((["models", "--store=~/one"], ""), (["models"], "~/two")):
        monkeypatch.setenv("PILOTLIGHT_STORE", variable or "memory://")
        monkeypatch.setattr(sys, "argv", ["pilotlight", *arguments])
        with pytest.raises(SystemExit):
            cli.app()
    assert sorted(each.name for each in home.iterdir()) == ["one", "two"]
