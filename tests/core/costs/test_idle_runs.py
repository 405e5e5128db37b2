"""What scheduled runs ask of S3 when there is nothing to do, counted at the bucket: the numbers of costs/idle.py."""

import importlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pilotlight.costs.idle import IDLE_RUNS
from pilotlight.local.stack_inventory import count_inventory
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.conftest import Serial, aws_variables, moto_server, new_bucket

ROOT = Path(__file__).parents[3]
TICK = {"detail-type": "Scheduled Event", "source": "aws.events"}


class CountedRequests(Serial):
    """An S3 that counts the requests that it gets, by what they cost."""

    def __init__(self, counts: Counter[str], application: Any) -> None:  # noqa: ANN401 - moto is not typed
        super().__init__(application)
        self._counts = counts

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:  # noqa: ANN401 - WSGI's own
        is_listing = "list-type" in environ["QUERY_STRING"] or environ["REQUEST_METHOD"] == "PUT"
        self._counts["lists" if is_listing else "gets"] += 1
        return super().__call__(environ, start_response)


class Context:
    """Of an invocation that has a quarter of an hour."""

    aws_request_id = "idle"

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


@pytest.fixture
def counts() -> Counter[str]:
    """The requests that the bucket has got."""
    return Counter()


@pytest.fixture
def bucket(counts: Counter[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket with one model, whose requests are counted."""
    with moto_server(partial(CountedRequests, counts)) as url:
        for name, value in aws_variables(url).items():
            monkeypatch.setenv(name, value)
        store = new_bucket(url)
        fakes.publish(Registry(open_store(store)))
        yield store


def run_handler(handler: str, store: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run a handler once as its schedule does, over this store; return what it answers."""
    module = importlib.import_module(handler.rpartition(".")[0])
    settings = Settings(store=store)
    if hasattr(module, "PROMOTER"):
        monkeypatch.setattr(module, "PROMOTER", module.build_promoter(settings))
    else:
        monkeypatch.setattr(module, "REPORTER", module.build_nightly_reporter(settings))
    return module.handle(TICK, Context())


@pytest.mark.parametrize("handler", IDLE_RUNS)
def test_a_run_that_finds_nothing_makes_the_requests_that_are_billed(
    handler: str,
    bucket: str,
    counts: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Of the second run on: the first one of the drift function creates the key of hashes. None emits a metric."""
    assert run_handler(handler, bucket, monkeypatch) == {"done": []}
    counts.clear()
    run_handler(handler, bucket, monkeypatch)
    assert counts == {"lists": IDLE_RUNS[handler].lists, "gets": IDLE_RUNS[handler].gets}
    assert "_aws" not in capfd.readouterr().out


def test_every_schedule_of_the_template_is_billed() -> None:
    assert {each.handler for each in count_inventory(ROOT / "template.yaml").scheduled} == IDLE_RUNS.keys()
