"""The fixture `run` itself."""

import os
from typing import Any

import pytest

from tests.core.cli.conftest import Run

LINE = b"m" * 300 + b"\n"  # longer than what the command says


def test_a_line_of_a_server_takes_no_word_of_the_command(
    run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    captured: Any = capfd._capture  # a process that was started in this test writes to the same file, at any moment
    seek = captured.err.tmpfile.seek

    def seek_and_be_late(place: int) -> int:
        found = int(seek(place))
        os.write(2, LINE)
        return found

    monkeypatch.setattr(captured.err.tmpfile, "seek", seek_and_be_late)
    assert "Cannot read nowhere" in run("predict", "m", "--input", "nowhere")[2]
