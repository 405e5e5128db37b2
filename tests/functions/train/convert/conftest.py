"""`pilotlight publish` as a user meets it, the conversion in this process, and a server over what was published."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import tritonclient.http as triton

from functions.train.convert.__main__ import main
from pilotlight.cli import app, model_conversion
from pilotlight.contracts.manifest import Manifest
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests.captured import count_captured, read_captured

ROOT = Path(__file__).parents[4]
Publish = Callable[..., Manifest]
Refused = Callable[..., str]


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the store that is served."""
    return str(tmp_path_factory.mktemp("intake") / "store")


@pytest.fixture(scope="session")
def client(kept: str) -> Iterator[triton.InferenceServerClient]:
    """Triton's own client of a server over the store."""
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": kept})
    with gateway.serve_in_background() as url, triton.InferenceServerClient(url.removeprefix("http://")) as found:
        yield found


def imported(file: Path) -> ModuleType:
    """A publisher's file as a module, to ask its models what is right."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `pilotlight publish WORDS`."""
    monkeypatch.setattr(model_conversion, "run_converter", lambda _, arguments: main(arguments))

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["pilotlight", "publish", *map(str, words)])
        starts = count_captured()
        with pytest.raises(SystemExit) as ended:
            app()
        return int(ended.value.code or 0), *read_captured(starts)

    return run


@pytest.fixture
def publish(command: Callable[..., tuple[int, str, str]], kept: str) -> Publish:
    """Publish into the store that is served; gives the manifest."""

    def run(*words: object, name: str) -> Manifest:
        code, out, err = command(*words, "--name", name, "--store", kept)
        assert code == 0, err
        return Registry(open_store(kept)).load_manifest(name, int(out.strip().rsplit(":", 1)[1]))

    return run


@pytest.fixture
def refused(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Refused:
    """What is said of words that are wrong: one sentence, exit code 2, and nothing in the store."""

    def run(*words: object) -> str:
        store = tmp_path / "untouched"
        code, out, err = command(*words, "--name", "m", "--store", store)
        assert (code, out) == (2, ""), err
        assert "Traceback" not in err
        assert not [path for path in store.rglob("*") if path.is_file()]
        return " ".join(err.split())

    return run
