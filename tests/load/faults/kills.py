"""SIGKILL at random moments of a publish, a promotion, a canary, a pruning and a batch: nothing half-done is seen."""

import json
import multiprocessing
import random
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from functions.batch_worker import caution
from functions.batch_worker.handler import build_batch_worker
from pilotlight.contracts.alias import AliasDocument, Canary
from pilotlight.errors import NotFoundError
from pilotlight.gate.evaluation import QualityGate
from pilotlight.gate.promotion import promote_version
from pilotlight.registry import alias_updates, retention
from pilotlight.registry.registry import Registry, version_path
from pilotlight.runtime.model_files import find_mismatch
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes
from tests.load.faults.row import Row, judge

PRELOADED = ["tests.load.faults.kills"]  # so that a child begins at once
LINES = 400  # of the file of the inbox
PART_BYTES = 2_000  # of the file; a part is some lines
GATE_S = 3.0  # longer than the gate takes for a small model

Work = Callable[[str], None]


def publish(url: str) -> None:
    """Publish version after version."""
    registry = Registry(open_store(url))
    while True:
        fakes.publish_digits(registry)


def move(url: str) -> None:
    """Move the champion on and on."""
    registry = Registry(open_store(url))
    for number in count():
        registry.move_alias("double", "champion", 1 + number % 3, actor="kill", reason="move")


def try_out(url: str) -> None:
    """Start and end a canary on and on."""
    registry = Registry(open_store(url))
    canary = Canary(2, (datetime.now(UTC) + timedelta(hours=1)).isoformat())
    while True:
        registry.update_alias(
            "double", "champion", lambda old: alias_updates.start_canary(old, canary, 500, "kill", "try")
        )
        registry.update_alias("double", "champion", lambda old: alias_updates.clear_traffic_split(old, "kill", "end"))


def pass_gate(url: str) -> None:
    """Bring the candidate through the gate, once."""
    promote_version(QualityGate(Registry(open_store(url)), 1769), "double", 3, actor="kill")


def prune(url: str) -> None:
    """Publish and prune on and on."""
    registry = Registry(open_store(url))
    while True:
        for _ in range(4):
            fakes.publish(registry)
        retention.prune(registry, retention.plan_pruning(registry, "double", 1))


def answer_inbox(url: str) -> None:
    """Answer the file of the inbox."""
    caution.PART_BYTES = PART_BYTES
    store = open_store(url)
    build_batch_worker(Settings(store=url), store)(created(store), None)


def created(store: ObjectStore) -> dict[str, object]:
    """The worker's own event for another invocation on the file."""
    return {"detail-type": "Pilotlight Inference", "detail": {"s3_uri": f"{store.url}/inbox/double/rows.jsonl"}}


def kill_after(work: Work, url: str, seconds: float) -> bool:
    """Kill a process some seconds after it began with the work; gives whether it had ended by itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=begin, args=(work, url, there))
    process.start()
    there.close()
    here.poll(60)
    process.join(seconds)
    ended = process.exitcode
    process.kill()
    process.join()
    if ended not in (None, 0):
        raise RuntimeError(f"{work.__name__} failed by itself with {ended}.")
    return process.exitcode != -signal.SIGKILL


def begin(work: Work, url: str, began: Connection) -> None:
    """Say that the process has started, and work."""
    began.send(True)
    work(url)


def find_half_versions(registry: Registry, name: str) -> list[str]:
    """What is wrong with the versions that can be seen: each must have every file as its manifest says."""
    wrong = []
    for version in registry.list_versions(name):
        manifest = registry.load_manifest(name, version)
        for file in manifest.files:
            try:
                mismatch = find_mismatch(registry.store, manifest, file)
            except NotFoundError as exc:
                mismatch = str(exc)
            if mismatch:
                wrong.append(f"{name}:{version} {file.path} {mismatch}")
    return wrong


def find_wrong_history(registry: Registry, name: str = "double") -> list[str]:
    """What is wrong with an alias: its history must be whole, and each move begin where the last one ended."""
    rows = registry.load_alias_history(name)
    documents = [row for row in rows if isinstance(row, AliasDocument)]
    wrong = ["an unreadable document"] if len(documents) < len(rows) else []
    if [document.number for document in documents] != list(range(1, len(documents) + 1)):
        wrong.append("numbers with gaps")
    wrong += [
        f"number {after.number} comes from elsewhere"
        for before, after in pairwise(documents)
        if after.version != before.version and after.previous != before.version
    ]
    if documents[-1].version not in registry.list_versions(name):
        wrong.append(f"the alias points to {documents[-1].version}, which is not there")
    return wrong


MOVERS: tuple[tuple[str, Work, float], ...] = (
    ("promote", move, 0.15),
    ("canary start and stop", try_out, 0.15),
    ("promote through the gate", pass_gate, GATE_S),
)


def run(times: int) -> list[Row]:
    """Kill each kind of work so many times."""
    chance = random.Random(times)  # noqa: S311 - a repeatable run, not a secret
    return [
        kill_publisher(times, chance),
        *(kill_mover(what, work, times, chance, span) for what, work, span in MOVERS),
        kill_pruner(times, chance),
        kill_worker(times, chance),
    ]


def kill_publisher(times: int, chance: random.Random) -> Row:
    """A publisher, of models of some files."""
    with TemporaryDirectory() as folder:
        url = Path(folder, "store").as_uri()
        registry, wrong = Registry(open_store(url)), list[str]()
        for _ in range(times):
            kill_after(publish, url, chance.uniform(0.02, 0.25))
            wrong += find_half_versions(registry, "digits")
        before = len(registry.list_versions("digits"))
        last = fakes.publish_digits(registry).version
        if registry.load_alias("digits", "candidate").version != last:
            wrong.append("the next version is not the candidate")
        folders = len(registry.store.list_folders("models/digits/versions"))
        seen = f"{times} kills: {before} whole versions, {folders - before - 1} unfinished uploads that nobody sees"
    return judge("kill -9, publish", "no half version is visible; the next publish goes through", seen, wrong)


def kill_mover(what: str, work: Work, times: int, chance: random.Random, span_s: float) -> Row:
    """What changes an alias."""
    with TemporaryDirectory() as folder:
        url = Path(folder, "store").as_uri()
        registry, wrong, kills = Registry(open_store(url)), list[str](), 0
        for _ in range(3):
            fakes.publish(registry)
        while kills < times:
            registry.move_alias("double", "champion", 1, actor="before", reason="so that there is something to do")
            kills += not kill_after(work, url, chance.uniform(0.01, span_s))
            wrong += find_wrong_history(registry)
        registry.move_alias("double", "champion", 1, actor="after", reason="it still moves")
        moves = registry.load_alias("double", "champion").number
        seen = f"{kills} kills: {moves} documents in a row, none lost"
    return judge(f"kill -9, {what}", "the alias is valid, its history whole, the next move goes through", seen, wrong)


def kill_pruner(times: int, chance: random.Random) -> Row:
    """A pruning."""
    with TemporaryDirectory() as folder:
        url = Path(folder, "store").as_uri()
        registry, wrong = Registry(open_store(url)), list[str]()
        fakes.publish(registry)
        for _ in range(times):
            kill_after(prune, url, chance.uniform(0.02, 0.2))
            wrong += find_half_versions(registry, "double") + find_wrong_history(registry)
        later = datetime.now(UTC) + timedelta(days=2)
        retention.prune(registry, retention.plan_pruning(registry, "double", 1, later))
        left = [path for path in registry.store.list_paths("models/double/versions") if not path.endswith("claim.json")]
        kept = {version_path("double", version, "") for version in registry.list_versions("double")}
        wrong += [f"{path} is left" for path in left if path.rsplit("/", 1)[0] + "/" not in kept]
        seen = f"{times} kills: every version that is seen is whole; a later prune removed what was left"
    return judge("kill -9, prune", "no version is broken, what is left goes with the next prune", seen, wrong)


def kill_worker(times: int, chance: random.Random) -> Row:
    """The batch worker on one file of the inbox; the last invocation is not killed."""
    with TemporaryDirectory() as folder:
        url = Path(folder, "store").as_uri()
        store, wrong, kills, files = open_store(url), list[str](), 0, 0
        fakes.publish(Registry(store))
        while kills < times:
            files += 1
            store.put("inbox/double/rows.jsonl", b"".join(request(number, files) for number in range(LINES)))
            for _ in range(5):
                kills += not kill_after(answer_inbox, url, chance.uniform(0.05, 0.6))
            answer_until_done(url)
            answered = store.get("outbox/double/rows.jsonl").data.splitlines()
            ids = [json.loads(line)["id"] for line in answered]
            if ids != [f"{files}-{number}" for number in range(LINES)]:
                wrong.append(f"{len(ids)} answers, {len(set(ids))} of them different, for {LINES} lines")
        seen = f"{kills} kills over {files} files of {LINES} lines: each answered once, in order"
    return judge("kill -9, batch worker", "no answer is lost or doubled", seen, wrong)


def answer_until_done(url: str) -> None:
    """Repeat the event, as Lambda does."""
    deadline = time.monotonic() + 60
    while not kill_after(answer_inbox, url, 20):
        if time.monotonic() > deadline:
            raise RuntimeError("The file is not answered after a minute.")


def request(number: int, file: int) -> bytes:
    """A line of the file."""
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [number, 0, 1]}
    return json.dumps({"id": f"{file}-{number}", "inputs": [tensor]}).encode() + b"\n"
