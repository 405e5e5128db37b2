"""What can be held true of the Dockerfile without building it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
LINES = (ROOT / "functions/train/Dockerfile").read_text("utf-8").splitlines()


def instructions(name: str) -> list[str]:
    return [line.removeprefix(name).strip() for line in LINES if line.startswith(f"{name} ")]


def test_everything_copied_is_there() -> None:
    sources = [line.split()[0] for line in instructions("COPY")]
    assert {"layers/core", "functions/train"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)


def test_job_gets_signals_and_is_not_root() -> None:
    assert instructions("ENTRYPOINT") == ['["python", "-m", "functions.train"]']  # exec form: no shell in between
    (user,) = instructions("USER")
    assert user not in ("root", "0")


def test_modules_are_found_as_on_lambda() -> None:
    assert re.search(r"PYTHONPATH=/var/task:/opt/python\b", "\n".join(LINES))
    copies = dict(line.split() for line in instructions("COPY"))
    assert copies["layers/core"] == "/opt/python"
    assert copies["functions/train"] == "/var/task/functions/train"
