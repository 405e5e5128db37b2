from pathlib import Path

import numpy as np
import pytest

from pilotlight.gate.checks import check_opens
from pilotlight.gate.probe import ProbeRequest, has_finite_answers, probe_version, run_probe
from pilotlight.gate.probe_result import ProbeResult
from pilotlight.registry.registry import Registry
from pilotlight.runtime import golden_recorder, request_search
from pilotlight.runtime.session import open_session
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.processing.test_text import tokenizer_with
from tests.functions.predict.test_hostile_inputs import publish_text


def test_the_peak_is_the_probes_own(tmp_path: Path) -> None:
    """Linux counts what a process held before it became the probe, which is what its parent holds, in ru_maxrss."""
    registry = Registry(open_store((tmp_path / "store").as_uri()))
    fakes.publish_digits(registry)
    (tmp_path / "answers").mkdir()
    held = np.ones(100_000_000)  # 800 MB
    found = run_probe(ProbeRequest(registry.store.address, "digits", 1, 1769, None, str(tmp_path / "answers")))
    assert held.nbytes > 700e6
    assert found.error is None
    assert 30 < found.peak_mb < 400


def probe(registry: Registry, name: str, folder: Path) -> ProbeResult:
    """What the probe finds, in this process."""
    return probe_version(ProbeRequest(registry.store.address, name, 1, 1769, None, str(folder)))


def test_a_tokenizer_that_panics_is_refused_at_the_gate(tmp_path: Path) -> None:
    registry = Registry(open_store((tmp_path / "store").as_uri()))
    publish_text(registry, "texts", tokenizer_with("(a+)+$"))
    found = probe(registry, "texts", tmp_path)
    assert found.error is not None
    assert found.error.startswith(
        "its tokenizer is refused, a text of 16,001 characters, 'aaaaaaaa' again and again, fails"
    )
    check = check_opens(registry.load_manifest("texts", 1), found)
    assert not check.passed


def test_a_graph_that_does_not_end_is_refused_at_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_recorder, "MAX_RUN_SECONDS", 0.1)
    registry = Registry(open_store((tmp_path / "store").as_uri()))
    fakes.publish(registry, "endless", "endless")
    assert probe(registry, "endless", tmp_path).error == "a made-up request of x [1, 3] takes longer than 0.1 s"
    fakes.publish(registry, "double", "double")
    assert probe(registry, "double", tmp_path).error is None


def test_the_gate_asks_the_recorded_requests_and_makes_up_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A search that finds nothing would take its whole time again."""
    graph = fakes.MODELS / "double.onnx"
    session = open_session(str(graph))
    recorded = golden_recorder.record_golden_requests(graph, "fp32", golden_recorder.generate_feeds(session))
    assert recorded is not None

    def search(*_: object, **__: object) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr(request_search, "search_requests", search)
    assert has_finite_answers(session, recorded) is True
    with pytest.raises(AssertionError, match="searched"):
        has_finite_answers(session)
