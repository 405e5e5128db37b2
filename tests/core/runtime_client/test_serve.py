"""The loop of an environment: init errors, and the hooks of SnapStart."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from functions.generate.start_runtime import list_runtime_paths
from pilotlight.runtime_client import serve
from pilotlight.runtime_client.runtime_connection import RuntimeConnection


class FakeConnection:
    """Notes what is asked of the Runtime API."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def wait_for_restore(self) -> None:
        self.told.append("restore/next")

    def post_error(self, path: str, report: dict[str, Any], error_type: str = "") -> None:
        self.told.append(f"{path} {error_type or report['errorType']}")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def connection(told: list[str]) -> RuntimeConnection:
    return cast("RuntimeConnection", FakeConnection(told))


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> Callable[[str], None]:
    """Lambda's library for hooks, in which hooks of these names are registered; `raise...` ones fail."""
    hooks: dict[str, list[Any]] = {"before": [], "after": []}

    def run(name: str) -> None:
        told.append(name)
        if name.startswith("raise"):
            raise OSError(name)

    module = ModuleType("snapshot_restore_py")
    vars(module).update(get_before_snapshot=lambda: hooks["before"], get_after_restore=lambda: hooks["after"])
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", module)
    return lambda name: hooks[name.split()[-1]].append((run, (name,), {}))


def test_hooks_run_around_the_snapshot(
    connection: RuntimeConnection, told: list[str], register: Callable[[str], None]
) -> None:
    for name in ("1 before", "2 before", "1 after", "2 after"):
        register(name)
    serve.wait_for_restore(connection)
    assert told == ["2 before", "1 before", "restore/next", "1 after", "2 after"]


@pytest.mark.parametrize(
    ("when", "code", "expected"),
    [
        ("before", 64, ["raise before", "init/error Runtime.BeforeSnapshotError"]),
        ("after", 65, ["restore/next", "raise after", "restore/error Runtime.AfterRestoreError"]),
    ],
)
def test_a_hook_that_fails_ends_the_environment_as_with_awss_client(
    connection: RuntimeConnection,
    told: list[str],
    register: Callable[[str], None],
    when: str,
    code: int,
    expected: list[str],
) -> None:
    register(f"raise {when}")
    with pytest.raises(SystemExit) as caught:
        serve.wait_for_restore(connection)
    assert (caught.value.code, told) == (code, expected)


def test_the_wrapper_looks_for_modules_where_lambdas_client_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.version_info", type("Version", (), {"major": 3, "minor": 13}))
    given = {"LAMBDA_TASK_ROOT": "/var/task", "LAMBDA_RUNTIME_DIR": "/var/runtime"}
    assert list_runtime_paths(given) == [
        "/var/task",
        "/opt/python/lib/python3.13/site-packages",
        "/opt/python",
        "/var/runtime",
    ]
    assert list_runtime_paths({**given, "PYTHONPATH": "/x"}) == ["/var/task", "/var/runtime"]


def test_the_wrapper_may_be_run() -> None:
    wrapper = Path(__file__).parents[3] / "functions" / "generate" / "runtime_wrapper"
    assert wrapper.stat().st_mode & 0o111 == 0o111
