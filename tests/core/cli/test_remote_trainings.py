"""Following a training of a server; tests/conformance/test_trainings.py has the server."""

import pytest

from pilotlight.cli import remote_trainings
from pilotlight.cli.console import ERRORS
from pilotlight.client.client import Client


def test_ctrl_c_within_a_line_of_the_log_is_answered(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def be_interrupted(client: Client, run: str) -> None:
        """As between the two halves of `with console:`, where rich collects lines and never writes them."""
        ERRORS.__enter__()
        raise KeyboardInterrupt

    monkeypatch.setattr(remote_trainings, "follow_with_curve", be_interrupted)
    try:
        with Client("http://127.0.0.1:9") as client:
            assert remote_trainings.follow_training(client, "left", json=False) == 130
        said = capfd.readouterr().err
    finally:
        ERRORS.__exit__(None, None, None)
    assert (
        "left goes on. Follow it again: pilotlight runs show left --follow --remote --url http://127.0.0.1:9\n" in said
    )
