"""Bad versions at the gate while the champion serves: each is refused in one sentence, and no request fails."""

import json
import threading
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pilotlight.contracts.manifest import Manifest
from pilotlight.gate.evaluation import QualityGate
from pilotlight.gate.promotion import promote_version
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.models import bad

ROOT = Path(__file__).parents[2]
IMAGES, _ = fakes.digits()


class Callers:
    """One connection that sends digits to the champion until it is told to stop."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self.over = threading.Event()
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []
        self.thread = threading.Thread(target=self._send, daemon=True)

    def _send(self) -> None:
        connection = HTTPConnection(self._address.hostname or "", self._address.port, timeout=60)
        place = 0
        while not self.over.is_set():
            place = (place + 1) % len(IMAGES)
            data = IMAGES[place].ravel().tolist()
            tensor = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": data}
            connection.request("POST", "/v2/models/digits/infer", json.dumps({"inputs": [tensor]}))
            answer = connection.getresponse()
            content = answer.read()
            if answer.status == 200:
                self.versions[json.loads(content)["model_version"]] += 1
            else:
                self.failures.append(f"{answer.status} {content[:300].decode(errors='replace')}")


def run() -> dict[str, Any]:
    """Publish each kind of bad version, ask the gate to promote it, and look at what callers saw meanwhile."""
    with TemporaryDirectory() as folder:
        registry = Registry(open_store(Path(folder, "store").as_uri()))
        fakes.publish_digits(registry)
        environment = {"PILOTLIGHT_STORE": registry.store.url, "PILOTLIGHT_ALIAS_SECONDS": "1", **fakes.QUIET}
        with Gateway(ROOT / "template.yaml", port=0, workers=1, environment=environment).serve_in_background() as url:
            callers = Callers(url)
            callers.thread.start()
            refused = {name: judged(registry, kind) for name, kind in bad.kinds().items()}
            callers.over.set()
            callers.thread.join()
    passed = [f"{name} was promoted" for name, why in refused.items() if why is None]
    return {"refused": refused, "answers": dict(callers.versions), "failures": callers.failures + passed}


def judged(registry: Registry, kind: bad.Kind) -> str | None:
    """Why the gate refuses that kind of version; None when it does not."""
    version = publish(registry, kind).version
    outcome = promote_version(QualityGate(registry, kind.memory_mb), "digits", version, actor="load")
    return None if outcome.alias_document else outcome.verdict.reason


def publish(registry: Registry, kind: bad.Kind) -> Manifest:
    """Publish it as the next version of digits, and spoil it afterwards if it is of that kind."""
    draft = msgspec.structs.replace(bad.DRAFT, **({"golden": None} | dict(kind.fields)))
    manifest = registry.publish_version(draft, {**bad.FILES, bad.GRAPH: kind.graph, **kind.files})
    if kind.tampered:
        path = version_path("digits", manifest.version, bad.GRAPH)
        registry.store.put(path, kind.graph[:-1] + b"x")
    return manifest
