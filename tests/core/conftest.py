"""On Lambda's python only the layers are installed: what a laptop needs beyond them is not tested there."""

from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore = [] if find_spec("uvicorn") else ["local", "cli", "client", "deployment", "doctor"]
collect_ignore += [] if find_spec("scipy") else ["drift/test_statistics.py"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, beside the folder in which it runs."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"
