"""Many processes promote and roll back one alias at random: no update is lost, and only what was decided is served."""

import multiprocessing
import os
import random
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pilotlight.contracts.alias import AliasDocument
from pilotlight.errors import ConflictError, InvalidInputError
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.conftest import Serial, aws_variables, moto_server, new_bucket

VERSIONS = 3


def move(url: str, seed: int, seconds: float) -> int:
    """Promote and roll back at random; gives how many changes went through."""
    drawn = random.Random(seed)  # noqa: S311 - a repeatable run, not a secret
    registry, deadline, done = Registry(open_store(url)), time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        try:
            if drawn.random() < 0.5:
                version = drawn.randint(1, VERSIONS)
                registry.move_alias("double", "champion", version, actor=str(seed), reason="promote")
            else:
                registry.rollback_alias("double", actor=str(seed), reason="roll back")
        except (ConflictError, InvalidInputError):  # somebody was faster, or there is nothing yet to go back to
            continue
        done += 1
    return done


def read(url: str, seconds: float) -> list[tuple[int, int]]:
    """What a server would follow all the while: the number of each document, and its version."""
    registry, deadline = Registry(open_store(url)), time.monotonic() + seconds
    seen: dict[int, int] = {}
    while time.monotonic() < deadline:
        document = registry.load_alias("double", "champion")
        seen[document.number] = document.version
    return sorted(seen.items())


def run(processes: int, seconds: float) -> dict[str, Any]:
    """On a disk, and on moto's S3 with conditional writes as atomic as S3's."""
    with TemporaryDirectory() as folder:
        disk = judge(Path(folder, "store").as_uri(), processes, seconds)
    with moto_server(Serial) as address:
        os.environ.update(aws_variables(address))
        s3 = judge(new_bucket(address), processes, seconds)
    return {"disk": disk, "s3": s3, "failures": [*disk["failures"], *s3["failures"]]}


def judge(url: str, processes: int, seconds: float) -> dict[str, Any]:
    """Move, read, and compare with the history."""
    registry = Registry(open_store(url))
    for _ in range(VERSIONS):
        fakes.publish(registry)
    with multiprocessing.get_context("spawn").Pool(processes + 1) as pool:
        reading = pool.apply_async(read, (url, seconds))
        done = pool.starmap(move, [(url, seed, seconds) for seed in range(processes)])
        seen = reading.get()
    rows = registry.load_alias_history("double")
    past = [row for row in rows if isinstance(row, AliasDocument)]
    movers = Counter(document.by for document in past[1:])
    wrong = {
        "unreadable documents": len(past) < len(rows),
        "numbers with gaps": [document.number for document in past] != list(range(1, len(past) + 1)),
        "a move from elsewhere": any(after.previous != before.version for before, after in pairwise(past)),
        "lost updates": movers != Counter({str(seed): count for seed, count in enumerate(done) if count}),
        "served and never current": any(past[number - 1].version != version for number, version in seen),
    }
    failures = [what for what, is_so in wrong.items() if is_so]
    return {"moves": sum(done), "history": len(past), "documents_read": len(seen), "failures": failures}
