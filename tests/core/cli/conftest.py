"""The command as a user meets it: words in; exit code, standard output and standard error out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pilotlight.cli import app
from tests.captured import count_captured, read_captured

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store, which the command takes by default."""
    url = str(tmp_path / "store")
    monkeypatch.setenv("PILOTLIGHT_STORE", url)
    return url


@pytest.fixture(autouse=True)
def config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's configuration folder, in which nothing is remembered."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("PILOTLIGHT_URL", raising=False)
    return tmp_path / "config" / "pilotlight"


@pytest.fixture
def run(store: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `pilotlight WORDS`."""

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["pilotlight", *words])
        starts = count_captured()
        with pytest.raises(SystemExit) as ended:
            app()
        code, (out, err) = int(ended.value.code or 0), read_captured(starts)
        assert code == 0 or out or err, f"exit code {code} without a word, for {ended.value.__context__!r}"
        return code, out, err

    return command
