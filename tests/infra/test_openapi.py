"""The documents that are made from the table of routes are right ones, and those that are committed."""

import json
import re
from dataclasses import is_dataclass
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from openapi_spec_validator import validate
from pydantic import TypeAdapter

from functions.registry_api.docs import DOCUMENT, render_page
from pilotlight.api.generation_errors import choose_error_formatter
from pilotlight.api.routes import ROUTES, SCOPES, VERBS
from pilotlight.local import intrinsics
from pilotlight.openapi import public_document
from pilotlight.openapi.__main__ import GATEWAY_FILE, OPENAPI_FILE, write_documents
from pilotlight.openapi.body_examples import BODY_EXAMPLES
from pilotlight.openapi.gateway_document import build_gateway_document
from pilotlight.openapi.public_document import SCHEMAS, build_openapi_document, build_operation_id

ROOT = Path(__file__).parents[2]
ERROR_BODIES = {kind.__name__: kind for kind in public_document.ERROR_BODIES}
INLINE_SCHEMAS = {"Anything", "Object"}  # of bodies that have no schema of their own


@pytest.mark.parametrize("name", [OPENAPI_FILE, GATEWAY_FILE], ids=str)
def test_the_committed_document_is_what_the_build_makes(
    name: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    for other in {OPENAPI_FILE, GATEWAY_FILE} - {name}:
        (tmp_path / other).parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    write_documents()
    assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes(), "run make routes"


def test_the_registry_api_serves_the_document() -> None:
    assert ROOT / OPENAPI_FILE == DOCUMENT


def test_the_gateways_document_needs_no_tags_of_cloudformations() -> None:
    """CloudFormation reads an included file as plain YAML, and the SAM CLI wants lists where it resolves nothing."""
    text = (ROOT / GATEWAY_FILE).read_text()
    assert yaml.safe_load(text) == json.loads(json.dumps(build_gateway_document()))
    assert not re.search(r"[:\[ -] [!&*]\w", text)
    methods = [method for item in build_gateway_document()["paths"].values() for method in item.values()]
    assert all(isinstance(method["security"], list) for method in methods)


def test_the_gateways_document_names_conditions_of_the_template() -> None:
    template = intrinsics.load_raw_template(ROOT / "template.yaml")
    named = set(re.findall(r"'Fn::If': \['?(\w+)", (ROOT / GATEWAY_FILE).read_text()))
    assert {
        "CachesKeys", "IsOpen", "IsPrivate", "UsesIamAuth", "UsesJwt", "UsesKeys", "UsesTokenMeter",
    } == named  # fmt: skip
    assert named <= template["Conditions"].keys()


def test_every_schema_is_that_of_a_route() -> None:
    named = {name for route in ROUTES for name in (route.response, route.body) if name and "/" not in name}
    assert named == SCHEMAS.keys()


def test_the_document_is_openapi() -> None:
    validate(json.loads(DOCUMENT.read_bytes()))


def test_every_body_has_an_example_and_nothing_else_has() -> None:
    bodies = {route.body for route in ROUTES if route.body in SCHEMAS} - INLINE_SCHEMAS
    schemas = json.loads(DOCUMENT.read_bytes())["components"]["schemas"]
    shown = {name: schema["examples"] for name, schema in schemas.items() if "examples" in schema}
    assert BODY_EXAMPLES.keys() == bodies
    assert shown == {name: [example] for name, example in BODY_EXAMPLES.items()}


@pytest.mark.parametrize(("name", "example"), BODY_EXAMPLES.items(), ids=list(BODY_EXAMPLES))
def test_an_example_is_a_body_of_its_type(name: str, example: dict[str, Any]) -> None:
    kind = SCHEMAS[name]
    if is_dataclass(kind):
        TypeAdapter(kind).validate_json(json.dumps(example))
    else:
        msgspec.convert(example, kind)
    known = build_openapi_document()["components"]["schemas"][name]["properties"].keys()
    assert example.keys() <= known, "some types ignore a field that they do not know"


def test_the_example_of_an_inference_has_as_many_values_as_its_shape() -> None:
    assert [prod(tensor["shape"]) for tensor in BODY_EXAMPLES["InferRequest"]["inputs"]] == [
        len(tensor["data"]) for tensor in BODY_EXAMPLES["InferRequest"]["inputs"]
    ]


def test_the_document_has_every_route_with_its_scope() -> None:
    paths = build_openapi_document()["paths"]
    found = {
        (path, verb.upper(), operation["x-scope"])
        for path, item in paths.items()
        for verb, operation in item.items()
        if verb != "parameters"
    }
    assert found == {(route.path, route.verb, route.scope) for route in ROUTES}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/messages", "AnthropicErrorBody"),
        ("/v1/messages/count_tokens", "AnthropicErrorBody"),
        ("/v1/responses", "OpenAIErrorBody"),
        ("/tokenize", "OpenAIErrorBody"),
        ("/v2/models/{model}/generate", "ErrorBody"),
        ("/invocations", "MlflowErrorBody"),
    ],
)
def test_errors_are_described_as_the_function_makes_them(path: str, name: str) -> None:
    document = build_openapi_document()
    error = document["paths"][path]["post"]["responses"]["400"]["content"]["application/json"]["schema"]
    assert error == {"$ref": f"#/components/schemas/{name}"}
    if name != "MlflowErrorBody":
        made = choose_error_formatter(path)(400, "It is wrong.")
        msgspec.json.decode(made.body, type=ERROR_BODIES[name])


def test_routes_that_stream_if_the_body_asks_for_it_are_described_so() -> None:
    paths = build_openapi_document()["paths"]
    streams = {
        path
        for path, item in paths.items()
        if len(item.get("post", {"responses": {}})["responses"].get("200", {}).get("content", ())) == 2
    }
    assert streams == {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}


def test_every_verb_of_a_path_is_among_those_of_its_scope() -> None:
    """A token's policy names the verbs of its scopes, and no others."""
    assert [route for route in ROUTES if route.verb not in VERBS[route.scope]] == []


def test_operations_have_names_of_their_own() -> None:
    names = [build_operation_id(route) for route in ROUTES]
    assert len(set(names)) == len(names)


def test_the_page_names_every_route_and_needs_nothing_from_elsewhere() -> None:
    shown = render_page(json.loads(DOCUMENT.read_bytes()))
    assert all(f"<code>{path}</code>" in shown for path in SCOPES)
    assert not re.findall(r"<script|https?://|\bsrc=|@import", shown)
    named, linked = set(re.findall(r"<h3 id='([^']+)'", shown)), set(re.findall(r"href='#([^']+)'", shown))
    assert linked <= named


def test_the_page_escapes_what_it_shows(tmp_path: Path) -> None:
    document = json.loads(DOCUMENT.read_bytes())
    document["paths"]["/v2"]["get"]["summary"] = "<script>"
    assert "<p>&lt;script&gt;</p>" in render_page(document)
