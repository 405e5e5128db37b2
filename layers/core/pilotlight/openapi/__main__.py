"""`python -m pilotlight.openapi`, as `make routes`: write the documents of the routes below the working folder."""

from pathlib import Path

from pilotlight.openapi.gateway_document import encode_gateway_document
from pilotlight.openapi.public_document import encode_openapi_document

OPENAPI_FILE = Path("functions/registry_api/openapi.json")  # served by the registry API
GATEWAY_FILE = Path("infra/api.yaml")  # included by template.yaml


def write_documents() -> None:
    """Write both documents."""
    OPENAPI_FILE.write_bytes(encode_openapi_document())
    GATEWAY_FILE.write_bytes(encode_gateway_document())


if __name__ == "__main__":
    write_documents()
