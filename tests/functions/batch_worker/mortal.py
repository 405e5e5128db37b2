"""Invocations as Lambda makes them for events, each in a process of its own that may die: three attempts for an event.

`python -m tests.functions.batch_worker.mortal STORE URI PART_BYTES` answers the file and prints what it took, as JSON.
A value of 666 in a line aborts the process, as a crash in native code does; 667 kills it, as for memory.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from functions.batch_worker import caution
from pilotlight.runtime.session import Session
from pilotlight.storage.object_store import open_store
from tests.functions.batch_worker.conftest import Place

ATTEMPTS = 3  # Lambda's, for an asynchronous invocation
MAX_INVOCATIONS = 200
run_session = Session.run


def run_or_die(session: Session, feeds: Mapping[str, Any], *more: Any) -> dict[str, Any]:  # noqa: ANN401 - as Session.run
    """Run the graph, unless a value ends the process."""
    if any((values == 666).any() for values in feeds.values()):
        os.abort()
    if any((values == 667).any() for values in feeds.values()):
        os.kill(os.getpid(), signal.SIGKILL)
    return run_session(session, feeds, *more)


def invoke(store_url: str, uri: str, resumed: Path) -> bool:
    """Answer the event in a process of its own; whether it came to an end. What it sends is appended to a file."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            place = Place(open_store(store_url))
            place.tell(uri)
            with resumed.open("a") as file:
                file.writelines(f"{each}\n" for each in place.post.resumed)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def main(store_url: str, uri: str, part_bytes: str) -> None:
    """Invoke until no event is left."""
    caution.PART_BYTES = int(part_bytes)
    Session.run = run_or_die  # type: ignore[method-assign,assignment]
    invocations = deaths = dead_letters = 0
    events = [uri]
    with TemporaryDirectory() as folder:
        while events and invocations < MAX_INVOCATIONS:
            event, resumed = events.pop(0), Path(folder, "resumed")
            resumed.write_text("")
            for _ in range(ATTEMPTS):
                invocations += 1
                if invoke(store_url, event, resumed):
                    break
                deaths += 1
            else:
                dead_letters += 1
            events += resumed.read_text().splitlines()
    sys.stdout.write(json.dumps({"invocations": invocations, "deaths": deaths, "dead_letters": dead_letters}))


if __name__ == "__main__":
    main(*sys.argv[1:])
