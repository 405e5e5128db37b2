"""Whether a server's models answer as they should, in every form that the protocol has. Each question is a prediction.

The questions are golden requests where the store is known, whose answers were recorded when the version was published;
else numbers made up for the first model that takes some.
"""

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from statistics import median
from typing import Any

import msgspec
import numpy as np

from pilotlight.api import v2_binary
from pilotlight.api.compression import WORTH_IT
from pilotlight.api.v2 import JSON_LENGTH
from pilotlight.client.client import Client, ModelMetadata, Reply, Tensor
from pilotlight.contracts.manifest import CHAMPION, Datatype, Manifest, decode
from pilotlight.doctor.finding import Check, FaultError, NotCheckedError, listed
from pilotlight.doctor.server import told
from pilotlight.errors import ModelRefusedError, NotFoundError, PilotlightError
from pilotlight.registry.registry import Registry, version_path
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.golden import Exchange, Golden, arrays, compare
from pilotlight.runtime.session import Array

VERSION = "x-pilotlight-version"
WARM_CALLS = 20
WARM_MS = 1000.0  # of the median; a warm function adds some ms to the graph's own time
FLOATS = ("FP32", "FP64")
PATTERN = (0.5, -1.25, 3.0, -0.1)  # each has bytes beyond ASCII, which break where bodies are taken for text
ASCII = 0x7F
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Question:
    """An inference with a known answer: the model's name, its inputs, their datatypes, and whether they are batched."""

    model: str
    inputs: Arrays
    datatypes: Mapping[str, Datatype]
    batched: bool

    def repeated(self, times: int) -> "Question":
        """The same for so many times as many examples."""
        longer = {name: np.concatenate([array] * times) for name, array in self.inputs.items()}
        return Question(self.model, longer, self.datatypes, self.batched)

    def json(self, *, binary_answer: bool = False) -> bytes:
        """The body in JSON form."""
        inputs = [
            Tensor(name, self.datatypes[name], array.shape, array.ravel().tolist())
            for name, array in self.inputs.items()
        ]
        return msgspec.json.encode({"inputs": inputs, "parameters": {"binary_data_output": binary_answer}})

    def binary(self) -> tuple[bytes, dict[str, str]]:
        """The body with binary tensors, there and back, and the header that says where its JSON ends."""
        tails = {name: v2_binary.encode(array) for name, array in self.inputs.items()}
        inputs = [
            {
                "name": name,
                "datatype": self.datatypes[name],
                "shape": array.shape,
                "parameters": {"binary_data_size": len(tails[name])},
            }
            for name, array in self.inputs.items()
        ]
        head = msgspec.json.encode({"inputs": inputs, "parameters": {"binary_data_output": True}})
        return b"".join((head, *tails.values())), {JSON_LENGTH: str(len(head))}


class Answers:
    """The models of a server, with what the registry of its store says of them, if it is known."""

    def __init__(self, client: Client, registry: Registry | None = None) -> None:
        self._client = client
        self._registry = registry

    def checks(self) -> tuple[Check, ...]:
        """All of them. The first one opens the model that the others ask, if nobody has yet."""
        return (
            Check("latency", self.latency),
            Check("binary tensors", self.binary),
            Check("gzip to it", self.gzip_request),
            Check("gzip from it", self.gzip_answer),
            Check("aliases over HTTP", self.alias),
            Check("cost", self.cost),
            Check("golden requests", self.golden),
        )

    def latency(self) -> str:
        """What a caller waits, the first time and then."""
        body = self._question.json()
        first, *warm = (self._ask(body) for _ in range(1 + WARM_CALLS))
        kind = "cold" if first.headers.get("x-pilotlight-cold") == "true" else "warm already"
        warm_ms = 1000 * median(reply.seconds for reply in warm)
        said = f"{1000 * first.seconds:.0f} ms the first time ({kind}), then {warm_ms:.1f} ms, median of {WARM_CALLS}"
        if warm_ms > WARM_MS:
            raise FaultError(
                f"{said}; more than {WARM_MS:g} ms: give the function more memory (ModelMemory), or look at what "
                "`pilotlight fit` says of the model."
            )
        return f"{said}."

    def binary(self) -> str:
        """Whether tensors survive as bytes, there and back: on AWS that takes BinaryMediaTypes."""
        body, header = self._question.binary()
        if max(body) <= ASCII:
            raise NotCheckedError(
                f"What {self._question.model} takes has no byte beyond ASCII, which alone would tell."
            )
        self._same(self._ask(body, header), "Binary tensors", "BinaryMediaTypes of template.yaml are not in force")
        return f"{len(body)} bytes there, and the answer back, are the same as in JSON."

    def gzip_request(self) -> str:
        """Whether a compressed request is understood."""
        body = self._question.json()
        packed = gzip.compress(body)
        reply = self._ask(packed, {"content-encoding": "gzip"})
        self._same(reply, "A request in gzip", "see BinaryMediaTypes of template.yaml")
        return f"{len(body)} bytes, sent as {len(packed)}, are answered as they are."

    def gzip_answer(self) -> str:
        """Whether an answer is compressed for whoever asks for it, and can be read."""
        question = self._question
        plain = self._ask(question.json(), {"accept-encoding": "identity"})
        times = ceil(2 * WORTH_IT / len(plain.content))
        if times > 1 and not question.batched:
            raise NotCheckedError(f"{question.model} answers with less than the {WORTH_IT} bytes that are worth it.")
        body = question.repeated(times).json()
        plain, packed = (self._ask(body, {"accept-encoding": how}) for how in ("identity", "gzip"))
        if packed.headers.get("content-encoding") != "gzip":
            raise FaultError("An answer is not compressed though gzip was asked for; does a proxy unpack it?")
        if packed.content != plain.content:
            raise FaultError("An answer in gzip is not what it is without; see BinaryMediaTypes of template.yaml.")
        return f"An answer of {len(plain.content)} bytes comes compressed."

    def alias(self) -> str:
        """Whether an answer says which version gave it, and a caller can pin one."""
        reply = self._ask(self._question.json(), where=f"/versions/{CHAMPION}")
        told_version, named = reply.headers.get(VERSION), answered(reply).get("model_version")
        if named is None or told_version != named:
            raise FaultError(f"Header {VERSION} says {told_version}, the body {named}; is the header cut on the way?")
        pinned = self._ask(self._question.json(), {VERSION: named}, where="/versions/no-such-alias")
        if pinned.headers.get(VERSION) != named:
            raise FaultError(
                f"Pinned to {named}, version {pinned.headers.get(VERSION)} answers; does {VERSION} arrive?"
            )
        if self._registry is not None:
            self._agrees(self._registry, int(named))
        return f"{self._question.model}@{CHAMPION} is answered by version {named}, and can be pinned to it."

    def cost(self) -> str:
        """Whether an answer says what it took and cost."""
        headers = self._ask(self._question.json()).headers
        usd, timing = headers.get("x-pilotlight-usd", ""), headers.get("server-timing", "")
        try:
            if float(usd) > 0 and "total;dur=" in timing:
                return f"A call is billed ${float(usd):.9f}, {headers.get('x-pilotlight-billed-ms')} ms."
        except ValueError:  # told below, with what was there instead
            pass
        raise FaultError(f"Headers say x-pilotlight-usd: {usd!r}, server-timing: {timing!r}; are they cut on the way?")

    def golden(self) -> str:
        """Whether every champion answers its golden requests through the URL as it did when it was published."""
        if self._registry is None:
            raise NotCheckedError("Their records lie in the store; give it as --store.")
        wrong, asked, models = list[str](), 0, 0
        for manifest, recorded in self._recorded(self._registry):
            models += 1
            for number, exchange in enumerate(recorded.exchanges, 1):
                asked += 1
                try:
                    self._replay(manifest, number, exchange, recorded.tolerance)
                except PilotlightError as exc:
                    wrong.append(f"{manifest.name}:{manifest.version}: {str(exc).rstrip('.')}")
        if wrong:
            raise FaultError(
                f"{len(wrong)} of {asked} golden requests fail: {listed(wrong)}; `pilotlight rollback` it."
            )
        if not models:
            raise NotCheckedError("No champion has golden requests.")
        return f"{asked} requests of {models} champions are answered as recorded."

    @cached_property
    def _question(self) -> Question:
        """What to ask: a golden request of the first champion that has one, else made-up numbers."""
        if self._registry is not None:
            for manifest, recorded in self._recorded(self._registry):
                return asked_of(manifest, recorded.exchanges[0])
        for name in self._client.models():
            found = made_up(self._client.metadata(name))
            if found is not None:
                return found
        raise NotCheckedError("It has no model that takes numbers; give --store, or publish one.")

    @cached_property
    def _expected(self) -> Arrays:
        """The question's answer in JSON."""
        return outputs(self._ask(self._question.json()))

    def _recorded(self, registry: Registry) -> Iterator[tuple[Manifest, Golden]]:
        """The champions that have golden requests."""
        for name in registry.models():
            try:
                manifest = registry.manifest(name, registry.alias(name, CHAMPION).version)
            except NotFoundError:
                continue  # the checks of the store say so
            if manifest.golden is not None:
                stored = registry.store.get(version_path(name, manifest.version, manifest.golden))
                yield manifest, decode(stored.data, Golden, manifest.golden)

    def _replay(self, manifest: Manifest, number: int, exchange: Exchange, tolerance: float) -> None:
        expected = arrays(exchange.response.outputs)
        wanted = [{"name": name} for name in expected]
        body = msgspec.json.encode({"inputs": exchange.request.inputs, "outputs": wanted})
        found = outputs(self._ask(body, model=manifest.name, where=f"/versions/{manifest.version}"))
        for name, array in expected.items():
            compare(number, name, array, found.get(name), tolerance)

    def _agrees(self, registry: Registry, version: int) -> None:
        document = registry.alias(self._question.model, CHAMPION)
        allowed = [document.version, *(share.version for share in document.shares)]
        if version not in allowed:
            raise FaultError(
                f"Version {version} answers, and {self._question.model}@{CHAMPION} of {registry.store.url} is "
                f"{document.version}; does the server read another store?"
            )

    def _ask(
        self, body: bytes, headers: Mapping[str, str] | None = None, *, model: str | None = None, where: str = ""
    ) -> Reply:
        """The answer to an infer request; `ModelRefusedError` when it is none."""
        model = model or self._question.model
        reply = self._client.exchange("POST", f"/v2/models/{model}{where}/infer", body, headers)
        if reply.status != 200:
            raise ModelRefusedError(f"{model} answers an infer request with {told(reply)}; see the function's log.")
        return reply

    def _same(self, reply: Reply, what: str, advice: str) -> None:
        """Fail what is answered otherwise than the same question in JSON."""
        for name, array in outputs(reply).items():
            if not alike(array, self._expected.get(name)):
                raise FaultError(f"{what} are answered otherwise than JSON, in {name!r}; {advice}.")


def asked_of(manifest: Manifest, exchange: Exchange) -> Question:
    """A golden request as a question."""
    given = arrays(exchange.request.inputs)
    datatypes = {tensor.name: tensor.datatype for tensor in exchange.request.inputs}
    batched = all(spec.shape and isinstance(spec.shape[0], str) for spec in manifest.inputs)
    return Question(manifest.name, given, datatypes, batched)


def made_up(model: ModelMetadata) -> Question | None:
    """Numbers for a model; None for one that takes anything but floating-point numbers."""
    if not model.inputs or any(spec.datatype not in FLOATS for spec in model.inputs):
        return None
    shapes = {spec.name: [max(1, size) for size in spec.shape] for spec in model.inputs}
    datatypes: dict[str, Datatype] = {spec.name: "FP32" if spec.datatype == "FP32" else "FP64" for spec in model.inputs}
    given = {name: np.resize(np.array(PATTERN, NUMPY_DTYPES[datatypes[name]]), shape) for name, shape in shapes.items()}
    return Question(model.name, given, datatypes, all(spec.shape[:1] == [-1] for spec in model.inputs))


def outputs(reply: Reply) -> dict[str, Array]:
    """The outputs of an answer, in whichever form it has; `ModelRefusedError` when it is not one."""
    head, tail = answered(reply), memoryview(reply.content)[json_bytes(reply) :]
    found: dict[str, Array] = {}
    try:
        for output in head["outputs"]:
            name, datatype, shape = output["name"], output["datatype"], output["shape"]
            if "data" in output:
                found[name] = np.array(output["data"], NUMPY_DTYPES[datatype]).reshape(shape)
                continue
            size = output["parameters"]["binary_data_size"]
            found[name] = v2_binary.decode(tail[:size], name, datatype, shape)
            tail = tail[size:]
    except (KeyError, TypeError, ValueError, PilotlightError) as exc:
        raise ModelRefusedError(f"The answer is not one of V2: {exc!r}.") from exc
    return found


def answered(reply: Reply) -> dict[str, Any]:
    """The JSON of an answer."""
    try:
        return msgspec.json.decode(reply.content[: json_bytes(reply)], type=dict[str, Any])
    except msgspec.MsgspecError as exc:
        raise ModelRefusedError(f"The answer is not one of V2: {exc}.") from exc


def json_bytes(reply: Reply) -> int:
    """How many bytes of an answer are JSON."""
    said = reply.headers.get(JSON_LENGTH, "")
    return int(said) if said.isdecimal() else len(reply.content)


def alike(found: Array, expected: Array | None) -> bool:
    """Whether two answers are the same but for rounding."""
    if expected is None or found.shape != expected.shape:
        return False
    if found.dtype == object:
        return np.array_equal(found, expected)
    return np.allclose(found.astype(np.float64), expected.astype(np.float64), rtol=1e-4, atol=1e-5, equal_nan=True)
