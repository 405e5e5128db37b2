"""Callers that ask a stack all the time, and what they were answered."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2

from tests.e2e.deploy.conftest import DeployedStack

X = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 0, 1]}]}
# One of each function that answers over HTTP, and behind all of them the authorizer.
CALLS = (
    ("GET", "/v2", None),
    ("POST", "/v2/models/double/infer", X),
    ("GET", "/registry/models", None),
    ("GET", "/v1/batches", None),
    ("GET", "/v1/trainings", None),
)
PAUSE_S = 0.1  # of each caller between two calls


@dataclass
class Callers:
    """Threads that go through CALLS in turn; what was not answered with 200 is kept."""

    stack: DeployedStack
    answered: Counter[str] = field(default_factory=Counter)
    versions: list[str] = field(default_factory=list)  # of the code, as GET /v2 told them, in order
    refused: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Call until it is said to end."""
        with httpx2.Client(headers={"authorization": f"Bearer {self.stack.key}"}, timeout=60) as client:
            while not self._ended.is_set():
                for method, path, body in CALLS:
                    self._ask(client, method, path, body)
                    time.sleep(PAUSE_S)

    def _ask(self, client: httpx2.Client, method: str, path: str, body: object) -> None:
        try:
            answer = client.request(method, f"{self.stack.url}{path}", json=body)
        except httpx2.TransportError as exc:
            self.refused.append(f"{method} {path}: {exc!r}")
            return
        if answer.status_code != 200:
            self.refused.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
            return
        self.answered[path] += 1
        if path == "/v2":
            self.versions.append(answer.json()["version"])

    @contextmanager
    def calling(self, threads: int = 2) -> Iterator["Callers"]:
        """Call while the block runs, and end with it."""
        running = [threading.Thread(target=self.run) for _ in range(threads)]
        for one in running:
            one.start()
        try:
            yield self
        finally:
            self._ended.set()
            for one in running:
                one.join()
