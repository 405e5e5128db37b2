"""`~` at the start of a path, wherever no shell has expanded it."""

from pathlib import Path

import pytest

from pilotlight.contracts.home_folder import expand_home
from pilotlight.errors import InvalidInputError
from pilotlight.storage.object_store import open_store

pytestmark = pytest.mark.usefixtures("home")


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
