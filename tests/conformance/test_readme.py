"""README's python runs as printed."""

import re
from pathlib import Path

import pytest

from tests.conformance.test_batches import call

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


SAID = (r"\(1, 10\)\n", r"(validating|in_progress|finalizing|completed)\n")  # by each block, in their order


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_in_readme_runs(
    number: int, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calls.jsonl").write_bytes(call(0) + call(1))
    monkeypatch.chdir(tmp_path)
    exec(BLOCKS[number].replace("localhost:8080", url.removeprefix("http://")), {})  # noqa: S102 - our own README
    assert re.fullmatch(SAID[number], capsys.readouterr().out)


def test_there_is_python_in_readme() -> None:
    assert BLOCKS
