"""`~` in recipes and in the command's arguments, wherever no shell has expanded it."""

import sys
from pathlib import Path

import pytest

from functions.train.data.files import DataRoot, find_files
from pilotlight import cli
from pilotlight.cli.serve import resolve_store
from pilotlight.recipes.schema import find_recipe_file, list_builtin_recipes, load_recipe

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize("url", ["~/store", "file://~/store"])
def test_store_of_a_server(home: Path, url: str) -> None:
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
