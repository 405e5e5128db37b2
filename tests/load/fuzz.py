"""Bodies and headers that nobody meant, at the handler: no 5xx, no exception, no growth of memory.

Half of them are valid requests with a few things changed, since noise alone ends at the first check.
"""

import base64
import gzip
import json
import random
import resource
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

from functions.predict.handler import build_predict_handler
from pilotlight.contracts.manifest import Datatype, TensorSpec
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes

NUMBERS = (0, 1, -1, 3, 64, 2**31, 2**32, 2**63, 2**64, 10**30, -(2**63), 0.5, 1e39, 1e308)
TEXTS = ("", "x", "FP32", "INT64", "BYTES", "y", "data", "\0", "é", "\ud800", "9" * 5000, "champion", "NaN", "../..")
LEAVES: tuple[Any, ...] = (*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], [[[1]]])
LENGTHS = ("0", "1", "12", "-1", "9" * 30, "9" * 5000, "٣", "1e3", "", " 12")
ENCODINGS = ("gzip", "deflate", "GZIP", "br", "identity", "gzip, deflate", "")
VERSIONS = ("1", "2", "champion", "0", "-1", "9" * 40, "a b", "é", "../1")
Change = Callable[[random.Random, Any], Any]
MIB = 1024 * 1024


def publish(store: str) -> None:
    """Models of numbers and of texts."""
    registry = Registry(open_store(store))
    fakes.publish(registry)
    fakes.publish(registry, of="square")
    echoes: dict[str, Datatype] = {"texts": "BYTES", "whole": "INT64"}
    for name, datatype in echoes.items():
        x, y = (TensorSpec(tensor, datatype, ("rows", "columns")) for tensor in "xy")
        registry.publish_version(fakes.draft(name, (x,), (y,)), {"model.onnx": fakes.graph(f"echo-{datatype.lower()}")})


def valid(chance: random.Random) -> tuple[str, dict[str, Any]]:
    """A model's name, and a request that it would answer."""
    name = chance.choice(("double", "texts", "whole"))
    datatype, data = {
        "double": ("FP32", [1.5, 2, 3]),
        "texts": ("BYTES", ["a", "é", ""]),
        "whole": ("INT64", [1, 2, 3]),
    }[name]
    given = {"name": "x", "shape": [1, 3], "datatype": datatype, "data": data}
    asked: dict[str, Any] = {"id": "1", "inputs": [given]}
    if chance.random() < 0.3:
        asked["outputs"] = [{"name": "y", "parameters": {"binary_data": chance.random() < 0.5}}]
    return name, asked


def spoiled(chance: random.Random, content: Any) -> Any:  # noqa: ANN401 - any JSON
    """The content with one thing in it replaced, removed, doubled or wrapped."""
    if isinstance(content, dict) and content and chance.random() < 0.8:
        key = chance.choice(list(content))
        if chance.random() < 0.1:
            return {other: value for other, value in content.items() if other != key}
        if chance.random() < 0.1:
            return content | {chance.choice(("parameters", "binary_data_size", "extra")): chance.choice(LEAVES)}
        return content | {key: spoiled(chance, content[key])}
    if isinstance(content, list) and content and chance.random() < 0.7:
        at = chance.randrange(len(content))
        return [*content[:at], spoiled(chance, content[at]), *content[at + chance.choice((0, 1, 1, 1)) :]]
    return chance.choice((*LEAVES, [content], {"parameters": content}))


def body(chance: random.Random, asked: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """Bytes, and the headers that belong to them or pretend to."""
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        asked = spoiled(chance, asked)
    raw, headers = json.dumps(asked).encode(), {}
    if chance.random() < 0.15:
        tail = chance.randbytes(chance.choice((0, 4, 12, 13, 100)))
        headers["Inference-Header-Content-Length"] = str(len(raw))
        raw += tail
    if chance.random() < 0.2:
        raw = mangled(chance, raw)
    if chance.random() < 0.1:
        raw, headers["Content-Encoding"] = chance.choice(
            ((gzip.compress(raw), "gzip"), (zlib.compress(raw), "deflate"))
        )
    if chance.random() < 0.1:
        raw = mangled(chance, raw)
    return raw, headers | noise(chance)


def mangled(chance: random.Random, raw: bytes) -> bytes:
    """Cut, flipped, doubled, or all noise."""
    at = chance.randrange(len(raw) + 1)
    return chance.choice(
        (
            raw[:at],
            raw[:at] + chance.randbytes(3) + raw[at:],
            raw * 2,
            chance.randbytes(64),
            b"[" * 2000,
            b'{"a":' * 2000,
        )
    )


def noise(chance: random.Random) -> dict[str, str]:
    """Headers that are there for no reason."""
    headers = {}
    for name, values in (
        ("Inference-Header-Content-Length", LENGTHS),
        ("Content-Encoding", ENCODINGS),
        ("Accept-Encoding", ENCODINGS),
        ("X-Pilotlight-Version", VERSIONS),
    ):
        if chance.random() < 0.06:
            headers[name] = chance.choice(values)
    return headers


def event(name: str, raw: bytes, headers: dict[str, str], chance: random.Random) -> dict[str, Any]:
    """A proxy event; one in a hundred says base64 of what is not."""
    text = base64.b64encode(raw).decode() if chance.random() > 0.01 else chance.choice(("é", "%", "YQ", raw.hex()))
    return {
        "httpMethod": chance.choice(("POST",) * 50 + ("GET", "PUT", "")),
        "resource": "/v2/models/{model}/infer",
        "path": f"/v2/models/{name}/infer",
        "pathParameters": {"model": name if chance.random() < 0.99 else chance.choice(TEXTS)},
        "headers": headers,
        "body": text,
        "isBase64Encoded": True,
    }


def resident() -> float:
    """The process's memory in MB."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - read often
        return int(statm.read().split()[1]) * resource.getpagesize() / MIB


def run(count: int, seed: int) -> dict[str, Any]:
    """Send so many; the statuses, the failures with the event that caused each, and memory in MB after each tenth."""
    chance, statuses, failures, memory = random.Random(seed), Counter[int](), [], [resident()]  # noqa: S311 - no secret
    with TemporaryDirectory() as store:
        publish(store)
        handle = build_predict_handler(Settings(store=store, alias_seconds=3600))
        for number in range(1, count + 1):
            name, asked = valid(chance)
            sent = event(name, *body(chance, asked), chance)
            answer = handle(sent, None)
            statuses[answer["statusCode"]] += 1
            if answer["statusCode"] in (500, 502, 503, 504) or not isinstance(answer["body"], str):
                failures.append({"event": sent, "answer": answer})
            if number % max(1, count // 10) == 0:
                memory.append(resident())
    return {
        "count": count,
        "seed": seed,
        "statuses": dict(sorted(statuses.items())),
        "failures": failures,
        "resident_mb": [round(each, 1) for each in memory],
    }
