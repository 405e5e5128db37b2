"""The OpenAPI document is a right one, says what the routes are, and is the one that is committed."""

import json
import re
from pathlib import Path

from openapi_spec_validator import validate

from functions.registry_api.docs import DOCUMENT, render_page
from pilotlight import openapi
from pilotlight.api.routes import SCOPES, VERBS


def test_the_committed_document_is_what_the_build_makes() -> None:
    assert openapi.encode_openapi_document() == DOCUMENT.read_bytes(), "run python -m pilotlight.openapi"


def test_the_document_is_openapi() -> None:
    validate(json.loads(DOCUMENT.read_bytes()))


def test_every_path_has_a_scope_and_every_scope_a_path() -> None:
    assert {operation.path for operation in openapi.OPERATIONS} == set(SCOPES)


def test_every_verb_of_a_path_is_among_those_of_its_scope() -> None:
    """A token's policy names the verbs of its scopes, and no others."""
    used = {(operation.path, operation.verb.upper()) for operation in openapi.OPERATIONS}
    assert {(path, verb) for path, verb in used if verb not in VERBS[SCOPES[path]]} == set()


def test_operations_have_names_of_their_own() -> None:
    names = [openapi.build_operation_id(operation) for operation in openapi.OPERATIONS]
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
