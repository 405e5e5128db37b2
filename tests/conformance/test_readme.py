"""README's python runs as printed."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_python_in_readme_runs(block: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(block.replace("localhost:8080", url.removeprefix("http://")), {})  # noqa: S102 - our own README
    assert capsys.readouterr().out == "(1, 10)\n"


def test_there_is_python_in_readme() -> None:
    assert BLOCKS
