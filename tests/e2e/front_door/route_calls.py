"""A request to each route of the table that it answers, and what must be there for that, made through the front door.

A route without an entry of its own gets its parameters and body from the names in its path.
"""

import json
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from pilotlight.api.routes import Route
from pilotlight.contracts.version_files import describe_file
from pilotlight.gate.evaluation import QualityGate
from pilotlight.registry.registry import Registry, version_path
from tests import fakes
from tests.e2e.front_door.server import Server

INFER = "/v2/models/digits/infer"
LABORATORY = "laboratory"
CHAT, VECTORS = "chat", "vectors"  # a language model, and a model of texts
TINY = ["name=tiny", "epochs=2", "model.channels=[4, 8]", "model.hidden=16", "data.calibration=32"]
PIXELS: list[int] = [int(value) for value in fakes.digits()[0][0].ravel()]
IMAGE = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": PIXELS}
LINE = json.dumps({"custom_id": "a", "method": "POST", "url": INFER, "body": {"inputs": [IMAGE]}}).encode() + b"\n"
LONG = 8_000  # lines of a batch that takes seconds, so that it can be cancelled
Values = Mapping[str, str]


class Subjects:
    """What a server has for its routes to be asked about."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def ask(self, method: str, path: str, **more: Any) -> Any:  # noqa: ANN401 - httpx's options, and JSON
        answer = self.server.ask(method, path, **more)
        assert answer.status_code in (200, 202), (path, answer.text)
        return answer.json()

    def upload_file(self, lines: int = 1) -> str:
        return str(self.ask("POST", "/v1/files", **build_form(lines))["id"])

    def begin_upload(self) -> str:
        body = {"purpose": "batch", "filename": "a.jsonl", "bytes": len(LINE), "mime_type": "application/jsonl"}
        return str(self.ask("POST", "/v1/uploads", json=body)["id"])

    def order_batch(self, lines: int = 1) -> str:
        return str(self.ask("POST", "/v1/batches", json=build_batch(self.upload_file(lines)))["id"])

    def start_training(self) -> str:
        """Start the run that all routes of trainings are asked about, unless that was done."""
        return str(self.ask("POST", "/v1/trainings", json=TRAINING)["run"])

    def ask_for_promotion(self) -> str:
        path = f"/registry/models/{LABORATORY}/aliases/tried/promote"
        return str(self.ask("POST", path, json={"version": "2"})["id"])

    def announce_version(self) -> str:
        path = f"/registry/models/{LABORATORY}/versions"
        return str(self.ask("POST", path, json=ANNOUNCEMENT)["version"])

    def upload_version(self) -> str:
        """Announce a version, and put its file where its URL would put it."""
        version = self.announce_version()
        path = version_path(LABORATORY, int(version), "model.onnx")
        self.server.registry.store.create(path, fakes.graph("double"))
        return version

    def publish(self) -> str:
        """Publish a version that no alias needs: `candidate` is at the second one after it, and was at the first."""
        versions = [fakes.publish(self.server.registry, LABORATORY).version for _ in range(3)]
        return str(versions[0])

    @cached_property
    def examined(self) -> str:
        """A version that the gate has examined."""
        gate = QualityGate(Registry(self.server.registry.store), memory_mb=1769)
        gate.evaluate(LABORATORY, 2, "champion", actor="front door")
        return "2"

    def name_alias(self, alias: str) -> str:
        """Point an alias of its own to version 2, which was at version 1 before."""
        for version in (1, 2):
            self.server.registry.move_alias(LABORATORY, alias, version, actor="front door", reason="for a test")
        return alias


ANNOUNCED = describe_file("model.onnx", fakes.graph("double"))
ANNOUNCEMENT = {
    "manifest": msgspec.to_builtins(fakes.draft(LABORATORY)),
    "files": [msgspec.to_builtins(ANNOUNCED)],
}
QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]
PREDICATE = {"type": "predicate", "instructions": "Is it a question?"}
TRAINING = {"recipe": "digits", "set": TINY, "run": "front-door"}


def build_form(lines: int = 1) -> dict[str, Any]:
    """Build the form of a file of that many lines, each with an id of its own."""
    content = b"".join(LINE.replace(b'"a"', b'"a%d"' % number) for number in range(lines))
    return {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", content)}}


def build_batch(file: str) -> dict[str, Any]:
    return {"input_file_id": file, "endpoint": INFER, "completion_window": "24h"}


PARAMETERS: Mapping[str, Callable[[Subjects], str]] = {
    "model": lambda _: "digits",
    "version": lambda _: "1",
    "alias": lambda _: "champion",
    "file": Subjects.upload_file,
    "upload": Subjects.begin_upload,
    "batch": Subjects.order_batch,
    "run": Subjects.start_training,
    "promotion": Subjects.ask_for_promotion,
}


def of_laboratory(subjects: Subjects, **more: str) -> dict[str, str]:
    return {"model": LABORATORY, **more}


def of_moved_alias(alias: str, subjects: Subjects) -> dict[str, str]:
    return of_laboratory(subjects, alias=subjects.name_alias(alias))


def find_nothing_special(subjects: Subjects) -> dict[str, str]:
    return {}


def of_language_model(subjects: Subjects) -> dict[str, str]:
    return {"model": CHAT}


# Of routes that want more than any model, by verb and path.
SPECIAL: Mapping[str, Callable[[Subjects], dict[str, str]]] = {
    "GET /v1/models/{model}": of_language_model,
    "POST /v2/models/{model}/generate": of_language_model,
    "POST /v2/models/{model}/versions/{version}/generate": of_language_model,
    "POST /v2/models/{model}/generate_stream": of_language_model,
    "POST /v2/models/{model}/versions/{version}/generate_stream": of_language_model,
    "POST /v2/repository/models/{model}/load": lambda _: {"model": "spare"},
    "POST /v2/repository/models/{model}/unload": lambda _: {"model": "spare"},
    "POST /registry/models/{model}/versions": of_laboratory,
    "GET /registry/models/{model}/versions/{version}/upload": lambda one: of_laboratory(
        one, version=one.announce_version()
    ),
    "POST /registry/models/{model}/versions/{version}/commit": lambda one: of_laboratory(
        one, version=one.upload_version()
    ),
    "DELETE /registry/models/{model}/versions/{version}": lambda one: of_laboratory(one, version=one.publish()),
    "GET /registry/models/{model}/versions/{version}/report": lambda _: {"model": "reported"},
    "GET /registry/models/{model}/versions/{version}/verdict": lambda one: of_laboratory(one, version=one.examined),
    "POST /registry/models/{model}/aliases/{alias}/promote": lambda one: of_laboratory(one, alias="fresh"),
    "GET /registry/models/{model}/promotions/{promotion}": of_laboratory,
    "POST /v1/batches/{batch}/cancel": lambda one: {"batch": one.order_batch(LONG)},
    **{
        f"POST /registry/models/{{model}}/aliases/{{alias}}/{what}": partial(of_moved_alias, f"for-{what}")
        for what in ("rollback", "canary", "split", "shadow")
    },
}

Body = Mapping[str, Any]  # httpx's options for it
NO_BODY: Body = MappingProxyType({})
BODIES: Mapping[str, Callable[[Subjects, Values], Body]] = {
    "/infer": lambda _, __: {"json": {"inputs": [IMAGE]}},
    "/invocations": lambda _, __: {"json": {"inputs": {"image": [[PIXELS[at : at + 8] for at in range(0, 64, 8)]]}}},
    "/versions": lambda _, __: {"json": ANNOUNCEMENT},
    "/prune": lambda _, __: {"json": {"keep": 3}},
    "/approval": lambda _, __: {"json": {"state": "approved", "why": "good"}},
    "/promote": lambda _, __: {"json": {"version": "2"}},
    "/canary": lambda _, __: {"json": {"version": "3"}},
    "/split": lambda _, __: {"json": {"shares": [{"version": "3", "percent": 20}]}},
    "/shadow": lambda _, __: {"json": {"version": "3"}},
    "/v1/files": lambda _, __: build_form(),
    "/v1/uploads": lambda _, __: {"json": {"purpose": "batch", "filename": "a.jsonl", "bytes": 9}},
    "/parts": lambda _, __: {"files": {"data": ("part", LINE)}},
    "/complete": lambda one, values: {"json": {"part_ids": [upload_part(one, values["upload"])]}},
    "/v1/batches": lambda one, _: {"json": build_batch(one.upload_file())},
    "/v1/trainings": lambda _, __: {"json": TRAINING},
    "/generate": lambda _, __: {"json": {"text_input": QUESTION}},
    "/generate_stream": lambda _, __: {"json": {"text_input": QUESTION}},
    "/v1/chat/completions": lambda _, __: {"json": {"model": CHAT, "messages": MESSAGES}},
    "/v1/completions": lambda _, __: {"json": {"model": CHAT, "prompt": QUESTION}},
    "/v1/responses": lambda _, __: {"json": {"model": CHAT, "input": QUESTION}},
    "/v1/messages": lambda _, __: {"json": {"model": CHAT, "messages": MESSAGES, "max_tokens": 16}},
    "/v1/messages/count_tokens": lambda _, __: {"json": {"model": CHAT, "messages": MESSAGES}},
    "/v1/embeddings": lambda _, __: {"json": {"model": VECTORS, "input": QUESTION}},
    "/v1/rerank": lambda _, __: {"json": {"model": VECTORS, "query": QUESTION, "documents": ["Paris", "Lyon"]}},
    "/v1/decisions": lambda _, __: {"json": {"model": CHAT, "input": QUESTION, "questions": [PREDICATE]}},
    "/tokenize": lambda _, __: {"json": {"model": CHAT, "prompt": QUESTION}},
    "/detokenize": lambda _, __: {"json": {"model": CHAT, "tokens": [80, 97]}},
}


def upload_part(subjects: Subjects, upload: str) -> str:
    return str(subjects.ask("POST", f"/v1/uploads/{upload}/parts", files={"data": ("part", LINE)})["id"])


class Call(NamedTuple):
    """A request to a route."""

    verb: str
    path: str
    body: Body = NO_BODY


def name_route(route: Route) -> str:
    return f"{route.verb} {route.path}"


def build_call(route: Route, subjects: Subjects) -> Call:
    """Build a request that the route answers, with everything that it needs."""
    special = SPECIAL.get(name_route(route), find_nothing_special)(subjects)
    named = [name for name in PARAMETERS if f"{{{name}}}" in route.path]
    values = {name: special.get(name) or PARAMETERS[name](subjects) for name in named}
    path = route.path.format_map(values)
    if route.body is None:
        return Call(route.verb, path)
    end = next((one for one in BODIES if route.path.endswith(one)), "")
    body = BODIES[end](subjects, values) if end else {"json": {}}
    return Call(route.verb, f"{path}?model=digits" if path == "/invocations" else path, body)


def build_refused_call(route: Route) -> Call:
    """Build a request that the function refuses: of a name that nothing has, of a wrong body, or by a wrong verb."""
    if "{" in route.path:
        values = dict.fromkeys(PARAMETERS, "nothing") | {"version": "9", "alias": "nowhere"}
        return Call(route.verb, route.path.format_map(values), NO_BODY if route.body is None else {"json": {}})
    if route.body is not None:
        return Call(route.verb, route.path, {"content": b"{", "headers": {"content-type": "application/json"}})
    return Call("POST", route.path, {"json": {}})
