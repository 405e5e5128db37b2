"""The file of remembered stacks: whose it is, what it keeps, and that half of it is never seen."""

from pathlib import Path

import pytest

from pilotlight.deployment.remembered_stacks import RememberedStack, RememberedStacks
from pilotlight.errors import BrokenDocumentError, InvalidInputError, UnavailableError

ONE = RememberedStack("one", "https://one.example.com/prod", "bucket-one", "us-east-1", key="plk_1")
TWO = RememberedStack("two", "https://two.example.com/prod", "bucket-two", "eu-west-1", profile="work")


@pytest.fixture
def stacks(tmp_path: Path) -> RememberedStacks:
    return RememberedStacks(tmp_path / "config" / "pilotlight")


def test_nothing_is_remembered_at_first(stacks: RememberedStacks) -> None:
    assert stacks.find() is None
    assert stacks.find_by_url(ONE.url) is None
    stacks.forget("one")
    assert not stacks.path.parent.exists()


def test_the_last_one_is_the_current_one(stacks: RememberedStacks) -> None:
    stacks.remember(ONE)
    stacks.remember(TWO)
    assert (stacks.find(), stacks.find("one"), stacks.find("three")) == (TWO, ONE, None)
    assert stacks.find_by_url("https://one.example.com/prod/") == ONE
    stacks.forget("two")
    assert stacks.find() == ONE
    stacks.forget("one")
    assert stacks.find() is None


def test_an_update_keeps_the_key_and_a_new_stack_of_the_name_does_not(stacks: RememberedStacks) -> None:
    stacks.remember(ONE)
    stacks.remember(RememberedStack("one", "https://other.example.com", "bucket-one", "us-east-1"))
    assert stacks.read().stacks[0].key == "plk_1"
    stacks.remember(RememberedStack("one", ONE.url, "bucket-three", "us-east-1"))
    assert stacks.read().stacks[0].key == ""


def test_only_its_owner_may_read_it(stacks: RememberedStacks) -> None:
    stacks.remember(ONE)
    assert stacks.path.stat().st_mode & 0o777 == 0o600
    assert stacks.path.parent.stat().st_mode & 0o777 == 0o700
    stacks.path.chmod(0o644)
    with pytest.raises(InvalidInputError, match=f"others may read it; run: chmod 600 {stacks.path}"):
        stacks.find()
    stacks.path.chmod(0o600)
    stacks.remember(TWO)
    assert [path.name for path in stacks.path.parent.iterdir()] == ["stacks.json"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"stacks": [{"name": 1}]}', b'{"current": "on'])
def test_what_it_cannot_be_is_told(stacks: RememberedStacks, content: bytes) -> None:
    stacks.path.parent.mkdir(parents=True)
    stacks.path.write_bytes(content)
    with pytest.raises(BrokenDocumentError, match=r"is not what `pilotlight deploy` wrote: .*; remove it"):
        stacks.find()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"cannot be (read|written): Not a directory"):
        RememberedStacks(tmp_path / "file" / "pilotlight").remember(ONE)
