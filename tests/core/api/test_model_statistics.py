import contextlib

from pilotlight.api.model_statistics import ModelStatistics
from tests import fakes

KEY = ("double", 1)


class Nanoseconds(fakes.Clock):
    def __call__(self) -> int:
        return int(self.now)


def answer(statistics: ModelStatistics, clock: fakes.Clock, items: int) -> None:
    with statistics.start_call(KEY) as call:
        clock.tick(10)
        call.mark_decoded(items)
        clock.tick(200)
        call.mark_inferred()
        clock.tick(3)


def test_time_goes_to_the_phase_that_took_it() -> None:
    clock = Nanoseconds()
    statistics = ModelStatistics(clock)
    for items in (1, 4, 4):
        answer(statistics, clock, items)
    (entry,) = statistics.build_document([KEY], {KEY: 86})["model_stats"]
    assert (entry["name"], entry["version"]) == ("double", "1")
    assert (entry["inference_count"], entry["execution_count"]) == (9, 3)
    assert entry["last_inference"] > 1_700_000_000_000
    assert entry["inference_stats"] == {
        "success": {"count": 3, "ns": 639},
        "fail": {"count": 0, "ns": 0},
        "queue": {"count": 0, "ns": 0},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
        "compute_input": {"count": 3, "ns": 30},
        "compute_infer": {"count": 3, "ns": 600},
        "compute_output": {"count": 3, "ns": 9},
    }
    assert [(batch["batch_size"], batch["compute_infer"]) for batch in entry["batch_stats"]] == [
        (1, {"count": 1, "ns": 200}),
        (4, {"count": 2, "ns": 400}),
    ]
    assert entry["memory_usage"] == [{"type": "CPU", "id": 0, "byte_size": 86}]


def test_what_fails_is_no_inference() -> None:
    clock = Nanoseconds()
    statistics = ModelStatistics(clock)
    with contextlib.suppress(ValueError), statistics.start_call(KEY):
        clock.tick(7)
        raise ValueError
    (entry,) = statistics.build_document([KEY], {})["model_stats"]
    assert entry["inference_stats"]["fail"] == {"count": 1, "ns": 7}
    assert (entry["inference_count"], entry["batch_stats"], entry["memory_usage"]) == (0, [], [])


def test_a_version_that_nobody_asked_for_has_zeros() -> None:
    statistics = ModelStatistics()
    (entry,) = statistics.build_document([("other", 2)], {})["model_stats"]
    assert (entry["name"], entry["version"], entry["execution_count"]) == ("other", "2", 0)
    assert statistics.list_versions() == []


def test_versions_are_those_asked_for() -> None:
    statistics = ModelStatistics()
    for key in (("b", 2), ("a", 1), ("b", 1)):
        statistics.start_call(key)
    assert statistics.list_versions() == [("a", 1), ("b", 1), ("b", 2)]
    assert statistics.list_versions("b") == [("b", 1), ("b", 2)]
