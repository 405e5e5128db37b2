"""Routes of the API's description: the OpenAPI document, which `make routes` generates, and an HTML page of it.

The page has no scripts and loads nothing from other servers, so that it works in a closed network too.
"""

import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pilotlight.api.http import JSON, Response
from pilotlight.api.powertools_router import TypedRoutes

DOCUMENT = Path(__file__).with_name("openapi.json")
HTML = "text/html; charset=utf-8"
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "code,pre{font:14px/1.4 ui-monospace,monospace;background:#f4f4f4}pre{padding:.6rem;overflow:auto}"
    "h3{margin:2rem 0 .3rem}b{color:#064}.scope{color:#777;font-weight:normal}a{color:#046}"
)


class DocsEndpoints:
    """The routes of the document's two forms."""

    def routes(self) -> TypedRoutes:
        """Return the endpoints by route and verb."""
        return {"/openapi.json": {"GET": self.get_document}, "/docs": {"GET": self.get_page}}

    def get_document(self) -> Response:
        """Return the OpenAPI document."""
        return Response(200, DOCUMENT.read_bytes(), {"content-type": JSON})

    def get_page(self) -> Response:
        """Return the document as an HTML page."""
        return Response(200, render_page(json.loads(DOCUMENT.read_bytes())).encode(), {"content-type": HTML})


def render_page(document: dict[str, Any]) -> str:
    """Render an OpenAPI document as one page."""
    title = html.escape(document["info"]["title"])
    description = html.escape(document["info"]["description"])
    tags = "".join(render_section(document, tag) for tag in document["tags"])
    schemas = "".join(render_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items()))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>{description} "
        f"<a href=openapi.json>openapi.json</a></p>{tags}<h2 id=forms>Forms</h2>{schemas}</html>\n"
    )


def render_section(document: dict[str, Any], tag: dict[str, str]) -> str:
    """Render the routes of a tag."""
    rendered = "".join(
        render_operation(*found) for found in iterate_operations(document) if tag["name"] in found[2]["tags"]
    )
    return f"<h2>{html.escape(tag['name'])}</h2><p>{html.escape(tag['description'])}</p>{rendered}"


def iterate_operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Iterate over the verb, path and content of each operation."""
    for path, item in document["paths"].items():
        for verb, content in item.items():
            if verb != "parameters":
                yield verb.upper(), path, content


def render_operation(verb: str, path: str, content: dict[str, Any]) -> str:
    """Render one operation: its summary, its request bodies and its responses."""
    request_content = content.get("requestBody", {}).get("content", {})
    lines = [f"sent: {link_schema(kind['schema'])}" for kind in request_content.values()]
    for status, answer in content["responses"].items():
        forms = [link_schema(kind["schema"]) for kind in answer.get("content", {}).values() if "schema" in kind]
        lines.append(f"{status}: {html.escape(answer['description'])} {' '.join(forms)}")
    scope = html.escape(content["x-scope"])
    return (
        f"<h3><b>{verb}</b> <code>{html.escape(path)}</code> <span class=scope>{scope}</span></h3>"
        f"<p>{html.escape(content['summary'])}</p><ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
    )


def link_schema(schema: dict[str, Any]) -> str:
    """Render a short reference to a schema, as a link if it has a name."""
    if "$ref" in schema:
        name = html.escape(schema["$ref"].rsplit("/", 1)[-1])
        return f"<a href='#{name}'>{name}</a>"
    if schema.get("items"):
        return f"list of {link_schema(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"{link_schema(schema['additionalProperties'])} by name"
    return html.escape(str(schema.get("type", "JSON")))


def render_schema(name: str, schema: dict[str, Any]) -> str:
    """Render a named schema."""
    description = html.escape(schema.get("description", ""))
    shown = {key: value for key, value in schema.items() if key not in ("description", "title")}
    content = html.escape(json.dumps(shown, indent=2, ensure_ascii=False))
    return f"<h3 id='{html.escape(name)}'>{html.escape(name)}</h3><p>{description}</p><pre>{content}</pre>"
