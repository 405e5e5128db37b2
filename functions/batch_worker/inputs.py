"""What one inference of a batch brings, in whatever form: JSON, a row of a table, an image.

It knows manifests and forms, not stores or sessions.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct

from pilotlight.api import missing, mlflow, v2
from pilotlight.api.large_tensors import Uploads
from pilotlight.contracts.manifest import Manifest, Reference
from pilotlight.contracts.processing import Image, Table
from pilotlight.errors import InvalidInputError
from pilotlight.processing.signature import Signature, signatures
from pilotlight.runtime.session import Array


class Head(Struct):
    """What tells a V2 body from a record, and which model it is for."""

    model_name: str | None = None
    model_version: str | int | None = None
    inputs: Raw = Raw(b"")


HEAD = msgspec.json.Decoder(Head)
TENSORS = re.compile(rb"\s*\[\s*\{")  # how V2's inputs begin; a model may have an input of that name


class Json(Struct, frozen=True):
    """A V2 body, or one record: an object of the model's inputs or columns, or the bare values of its only input."""

    data: bytes
    head: Head | None = None  # of an object

    @classmethod
    def read(cls, data: bytes) -> "Json":
        """Look at it; `InvalidInputError` for what is no JSON."""
        try:
            plain = missing.as_null(data) or data
            if data.lstrip()[:1] == b"{":
                return cls(data, HEAD.decode(plain))
            msgspec.json.decode(plain)
        except msgspec.ValidationError as exc:
            raise InvalidInputError(f"The body is not an infer request: {exc}.") from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise InvalidInputError(f"The body is not JSON (which has no Infinity): {exc}.") from exc
        return cls(data)

    def reference(self) -> Reference | None:
        """The model that the body names, if it does."""
        if self.head is None or self.head.model_name is None:
            return None
        version = self.head.model_version
        return Reference.select(self.head.model_name, None if version is None else str(version))

    def request(self, manifest: Manifest, uploads: Uploads | None = None) -> v2.InferRequest:
        """As predict reads it, else as a record."""
        if self.head is not None and TENSORS.match(self.head.inputs):
            return v2.decode_infer(self.data, {}, manifest, uploads)
        record = msgspec.json.decode(missing.as_null(self.data) or self.data)
        if isinstance(record, dict):
            record = {name: value for name, value in record.items() if name not in ("model_name", "model_version")}
        return from_record(record, manifest)


class Row(Struct, frozen=True):
    """A row of a CSV file, by the names of its columns."""

    cells: Mapping[str, str]

    def reference(self) -> Reference | None:
        """A table names no model."""
        return None

    def request(self, manifest: Manifest, uploads: Uploads | None = None) -> v2.InferRequest:
        """The row as the model's columns, inputs or features."""
        return from_record(dict(self.cells), manifest, strict=False)


class Picture(Struct, frozen=True):
    """A PNG or JPEG file."""

    data: bytes

    def reference(self) -> Reference | None:
        """An image names no model."""
        return None

    def request(self, manifest: Manifest, uploads: Uploads | None = None) -> v2.InferRequest:
        """The file as the model's image; `InvalidInputError` for a model that takes none."""
        if not isinstance(manifest.prepare, Image):
            raise InvalidInputError(f"{manifest.name} takes no image; its inputs are {signatures(manifest)[0].names}.")
        tensor = np.array([self.data], object)
        return asked(signatures(manifest)[0], {manifest.prepare.name: tensor})


class Call(Struct, frozen=True):
    """A request of a batch: a V2 body, the id that its answer carries, and the model of its endpoint."""

    data: bytes
    custom_id: str
    meant: Reference

    def reference(self) -> Reference | None:
        """The endpoint's."""
        return self.meant

    def request(self, manifest: Manifest, uploads: Uploads | None = None) -> v2.InferRequest:
        """As predict reads it."""
        return v2.decode_infer(self.data, {}, manifest, uploads)


Body = Json | Row | Picture | Call


def from_record(record: Any, manifest: Manifest, *, strict: bool = True) -> v2.InferRequest:  # noqa: ANN401 - any JSON
    """One record as a batch of one; not `strict`: its values are texts, as in a CSV file."""
    way, steps = signatures(manifest)[0], manifest.prepare
    if not way.raw and isinstance(record, dict) and set(record) == set(way.names):
        return asked(way, {name: np.array([cell(name, value)], object) for name, value in record.items()})
    if isinstance(steps, Table) and isinstance(record, list):
        row = [cell(steps.name, value) for value in record]
        return asked(signatures(manifest)[1], {steps.name: np.array([row], object)})
    if not way.raw and isinstance(record, str):
        return asked(way, {way.names[0]: np.array([record], object)})
    own = next(way for way in signatures(manifest) if way.raw)
    if isinstance(record, dict):
        columns = {name: [value] for name, value in record.items()}
        return asked(own, mlflow.from_columns(columns, manifest, strict=strict))
    return asked(own, mlflow.only_input([record], manifest))


def asked(way: Signature, tensors: Mapping[str, Array]) -> v2.InferRequest:
    """A request for all that the model answers to such inputs."""
    return v2.InferRequest(None, tensors, [v2.Wanted(spec.name) for spec in way.outputs])


def cell(name: str, value: object) -> str | float | None:
    """A single value of a record; `InvalidInputError` for a list or an object."""
    if value is None or isinstance(value, str | int | float):
        return value
    raise InvalidInputError(f"{name!r} is {value!r}, expected one number or text.")
