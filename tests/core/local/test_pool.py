"""Which environment gets which invocation, with environments that start and end when the test says so."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pilotlight.local.gateway_errors import CLIENT_GONE, FAILED, STOPPING, THROTTLED, TIMED_OUT, GatewayError
from pilotlight.local.pool import Answer, EnvironmentPool, OnFree
from pilotlight.local.template import GatewayLimits
from tests.core.local.fakes import FakeEnvironment, invocation

LIMITS = GatewayLimits(integration_s=5.0, watch_s=0.01)


class House:
    """A pool, the environments that it has made so far, and what it has been asked for."""

    def __init__(self, workers: int = 2, idle_s: float = 300.0, limits: GatewayLimits = LIMITS) -> None:
        self.made: list[FakeEnvironment] = []
        self.pool = EnvironmentPool(self._make, workers, idle_s, limits, queue_length=20)
        self.pool.start()

    def _make(self, on_free: OnFree) -> FakeEnvironment:
        self.made.append(FakeEnvironment(on_free))
        return self.made[-1]

    async def ask(self, name: str, *, is_abandoned: bool = False) -> "asyncio.Task[Answer]":
        given = invocation(name, is_abandoned=is_abandoned)
        task = asyncio.create_task(self.pool.invoke_within_limit(given), name=name)
        await settle()
        return task

    @property
    def working(self) -> list[str | None]:
        return [made.working.request_id if made.working else None for made in self.made]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def on_a_loop(scenario: Callable[[House], Awaitable[None]], **options: float) -> None:
    async def run() -> None:
        house = House(
            int(options.get("workers", 2)),
            options.get("idle_s", 300.0),
            GatewayLimits(integration_s=options.get("integration_s", 5.0), watch_s=0.01),
        )
        await scenario(house)
        await house.pool.stop()

    asyncio.run(run())


def kind_of(task: "asyncio.Task[Answer]") -> object:
    error = task.exception()
    assert isinstance(error, GatewayError)
    return error.kind


def test_nothing_is_started_before_it_is_needed() -> None:
    async def scenario(house: House) -> None:
        await settle()
        assert house.made == []
        task = await house.ask("a")
        assert house.working == [None]
        house.made[0].become_free()
        assert house.working == ["a"]
        house.made[0].finish()
        assert await task == b"{}"

    on_a_loop(scenario)


def test_no_more_than_workers_are_started_and_the_line_is_kept() -> None:
    async def scenario(house: House) -> None:
        tasks = [await house.ask(name) for name in "abcd"]
        assert len(house.made) == 2
        house.made[1].become_free()
        house.made[0].become_free()
        assert house.working == ["b", "a"]
        house.made[0].finish()
        house.made[1].finish()
        assert house.working == ["d", "c"] or house.working == ["c", "d"]
        for made in house.made:
            made.finish()
        assert await asyncio.gather(*tasks) == [b"{}"] * 4

    on_a_loop(scenario)


def test_most_recently_used_is_taken_first() -> None:
    async def scenario(house: House) -> None:
        for name in "ab":
            await house.ask(name)
        first, second = house.made
        first.become_free()
        second.become_free()
        second.finish()
        first.finish()
        await house.ask("c")
        assert house.working == ["c", None]
        await house.ask("d")
        assert house.working == ["c", "d"]
        assert len(house.made) == 2

    on_a_loop(scenario)


def test_free_environment_serves_who_waits_for_another_to_start() -> None:
    async def scenario(house: House) -> None:
        await house.ask("a")
        house.made[0].become_free()
        await house.ask("b")  # starts a second one
        house.made[0].finish()
        assert house.working == ["b", None]
        house.made[1].become_free()
        await house.ask("c")
        assert house.working == ["b", "c"]

    on_a_loop(scenario)


def test_death_fails_what_it_was_working_on_and_starts_another_for_the_line() -> None:
    async def scenario(house: House) -> None:
        first, second = await house.ask("a"), await house.ask("b")
        house.made[0].become_free()
        house.made[0].end("exited with code 3")
        await settle()
        assert str(first.exception()) == "Internal server error: F exited with code 3."
        assert kind_of(first) is FAILED
        assert len(house.made) == 2
        house.made[1].become_free()
        assert house.working[1] == "b"
        assert not second.done()

    on_a_loop(scenario, workers=1)


def test_failed_start_fails_the_first_in_line_only() -> None:
    async def scenario(house: House) -> None:
        first, second = await house.ask("a"), await house.ask("b")
        house.made[0].end("could not be initialised: ImportError")
        await settle()
        assert kind_of(first) is FAILED
        assert not second.done()
        assert len(house.made) == 2

    on_a_loop(scenario, workers=1)


def test_what_a_dead_environment_had_not_seen_goes_back_to_the_head_of_the_line() -> None:
    async def scenario(house: House) -> None:
        first, second = await house.ask("a"), await house.ask("b")
        house.made[0].become_free()
        house.made[0].is_delivered = False
        house.made[0].end("exited with code 3")
        await settle()
        house.made[1].become_free()
        assert house.working[1] == "a"
        assert not first.done()
        assert not second.done()

    on_a_loop(scenario, workers=1)


def test_free_environment_that_dies_is_not_used_again() -> None:
    async def scenario(house: House) -> None:
        await house.ask("a")
        house.made[0].become_free()
        house.made[0].finish()
        house.made[0].end("exited with code 3")
        await settle()
        await house.ask("b")
        assert len(house.made) == 2

    on_a_loop(scenario)


def test_integration_limit_ends_the_wait_and_not_the_work() -> None:
    async def scenario(house: House) -> None:
        first, second = await house.ask("a"), await house.ask("b")
        house.made[0].become_free()
        await asyncio.wait([first, second])
        assert (kind_of(first), kind_of(second)) == (TIMED_OUT, TIMED_OUT)
        assert house.working == ["a"]
        house.made[0].finish()
        assert house.working == [None]  # `b` has left the line

    on_a_loop(scenario, workers=1, integration_s=0.05)


def test_client_that_has_gone_is_passed_over() -> None:
    async def scenario(house: House) -> None:
        await house.ask("a")
        gone = await house.ask("b", is_abandoned=True)
        await house.ask("c")
        house.made[0].become_free()
        house.made[0].finish()
        await settle()
        assert house.working == ["c"]
        assert kind_of(gone) is CLIENT_GONE

    on_a_loop(scenario, workers=1)


def test_idle_environment_is_ended_and_busy_ones_are_checked() -> None:
    async def scenario(house: House) -> None:
        for name in "ab":
            await house.ask(name)
        idle, busy = house.made
        idle.become_free()
        busy.become_free()
        idle.finish()
        while idle in house.pool.environments:
            await asyncio.sleep(0.01)
        assert list(house.pool.environments) == [busy]
        assert busy.checks > 0

    on_a_loop(scenario, idle_s=0.03)


def test_stop_fails_everybody_and_takes_nobody_new() -> None:
    async def scenario(house: House) -> None:
        tasks = [await house.ask(name) for name in "ab"]
        house.made[0].become_free()
        await house.pool.stop()
        await settle()
        tasks.append(await house.ask("c"))
        assert [kind_of(task) for task in tasks] == [STOPPING] * 3
        assert len(house.made) == 1

    on_a_loop(scenario, workers=1)


@pytest.mark.parametrize("workers", [1, 3])
def test_burst_starts_one_environment_each(workers: int) -> None:
    async def scenario(house: House) -> None:
        for number in range(5):
            await house.ask(f"id-{number}")
        assert len(house.made) == workers

    on_a_loop(scenario, workers=workers)


def test_line_has_an_end() -> None:
    async def scenario(house: House) -> None:
        waiting = [await house.ask(f"w{number}") for number in range(20)]
        refused = await house.ask("one too many")
        assert kind_of(refused) is THROTTLED
        assert house.pool.in_flight == 20
        house.made[0].become_free()
        later = await house.ask("in its place")
        assert not later.done()
        assert not any(task.done() for task in waiting)

    on_a_loop(scenario)
