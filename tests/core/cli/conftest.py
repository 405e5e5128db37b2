"""The command as a user meets it: words in; exit code, standard output and standard error out."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pilotlight.cli import app

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store, which the command takes by default."""
    url = str(tmp_path / "store")
    monkeypatch.setenv("PILOTLIGHT_STORE", url)
    return url


@pytest.fixture
def run(store: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `pilotlight WORDS`."""

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["pilotlight", *words])
        starts = [os.fstat(descriptor).st_size for descriptor in (1, 2)]
        with pytest.raises(SystemExit) as ended:
            app()
        code = int(ended.value.code or 0)
        out, err = (read_captured(descriptor, start) for descriptor, start in zip((1, 2), starts, strict=True))
        assert code == 0 or out or err, f"exit code {code} without a word, for {ended.value.__context__!r}"
        return code, out, err

    return command


def read_captured(descriptor: int, start: int) -> str:
    """What was written to a captured stream since it had so many bytes, without moving its place.

    `capfd.readouterr` seeks to the beginning and then reads. Processes that a test has started share that place, so
    that a server's line in between overwrites what the command said, and nothing is left to be read.
    """
    return os.pread(descriptor, os.fstat(descriptor).st_size - start, start).decode(errors="replace")
