"""Convert the inputs of batches to infer requests: JSON, rows of a table, images.

This module depends on manifests and formats, not on stores or sessions.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct

from pilotlight.api import mlflow, v2
from pilotlight.api.large_tensors import UploadedTensors
from pilotlight.api.request_limits import UNLIMITED, UNTYPED_COST, RequestLimits
from pilotlight.api.v2_json import replace_nan_with_null
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.contracts.processing import AudioPreprocessing, ImagePreprocessing, TablePreprocessing
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.processing.signature import CallSignature, list_signatures
from pilotlight.runtime.datatypes import Array


class InferenceEnvelope(Struct):
    """The fields that distinguish a V2 body from a record, and the model that it names."""

    model_name: str | None = None
    model_version: str | int | None = None
    inputs: Raw = Raw(b"")


HEAD_DECODER = msgspec.json.Decoder(InferenceEnvelope)
V2_INPUTS = re.compile(rb"\s*\[\s*\{")  # how V2's inputs begin; a model may also have an input named `inputs`


class JsonInput(Struct, frozen=True):
    """A V2 body, or one record: an object with the model's inputs or columns, or the value of its only input."""

    data: bytes
    head: InferenceEnvelope | None = None  # None unless the data is an object

    @classmethod
    def parse(cls, data: bytes) -> "JsonInput":
        """Parse the beginning of a body; raise `InvalidInputError` if it is not JSON."""
        try:
            plain = replace_nan_with_null(data) or data
            if data.lstrip()[:1] == b"{":
                return cls(data, HEAD_DECODER.decode(plain))
            msgspec.json.decode(plain)
        except msgspec.ValidationError as exc:
            raise InvalidInputError(f"The body is not an infer request: {exc}.") from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise InvalidInputError(f"The body is not JSON (which has no Infinity): {exc}.") from exc
        except MemoryError as exc:
            raise TooLargeError(
                f"The {len(data):,} bytes of JSON decode to more than the memory that is free."
            ) from exc
        return cls(data)

    def get_reference(self) -> ModelReference | None:
        """Return the model that the body names, if any."""
        if self.head is None or self.head.model_name is None:
            return None
        version = self.head.model_version
        return ModelReference.from_selector(self.head.model_name, None if version is None else str(version))

    def to_infer_request(
        self, manifest: Manifest, uploads: UploadedTensors | None = None, limits: RequestLimits = UNLIMITED
    ) -> v2.InferenceRequest:
        """Decode the body as the predict function does, else as a record."""
        if self.head is not None and V2_INPUTS.match(self.head.inputs):
            return v2.decode_infer_request(self.data, {}, manifest, uploads, limits)
        limits.check_text(self.data, UNTYPED_COST)
        record = msgspec.json.decode(replace_nan_with_null(self.data) or self.data)
        if isinstance(record, dict):
            record = {name: value for name, value in record.items() if name not in ("model_name", "model_version")}
        return from_record(record, manifest)


class CsvRow(Struct, frozen=True):
    """A row of a CSV file, by the names of its columns."""

    cells: Mapping[str, str]

    def get_reference(self) -> ModelReference | None:
        """Return None, since a table does not name a model."""
        return None

    def to_infer_request(
        self, manifest: Manifest, uploads: UploadedTensors | None = None, limits: RequestLimits = UNLIMITED
    ) -> v2.InferenceRequest:
        """Convert the row to the model's columns, inputs or features."""
        return from_record(dict(self.cells), manifest, strict=False)


class ExampleFile(Struct, frozen=True):
    """A file that is one example: an image or a sound."""

    data: bytes

    def get_reference(self) -> ModelReference | None:
        """Return None, since such a file does not name a model."""
        return None

    def to_infer_request(
        self, manifest: Manifest, uploads: UploadedTensors | None = None, limits: RequestLimits = UNLIMITED
    ) -> v2.InferenceRequest:
        """Convert the file to the model's example; raise `InvalidInputError` for a model that takes no files."""
        if not isinstance(manifest.preprocess, ImagePreprocessing | AudioPreprocessing):
            raise InvalidInputError(
                f"{manifest.name} takes neither images nor sounds; its inputs are "
                f"{list_signatures(manifest)[0].input_names}."
            )
        tensor = np.array([self.data], object)
        return build_infer_request(list_signatures(manifest)[0], {manifest.preprocess.name: tensor})


class BatchCall(Struct, frozen=True):
    """A request of a batch: a V2 body, the id for its answer, and the model of its endpoint."""

    data: bytes
    custom_id: str
    meant: ModelReference

    def get_reference(self) -> ModelReference | None:
        """Return the model of the endpoint."""
        return self.meant

    def to_infer_request(
        self, manifest: Manifest, uploads: UploadedTensors | None = None, limits: RequestLimits = UNLIMITED
    ) -> v2.InferenceRequest:
        """Decode the body as the predict function does."""
        return v2.decode_infer_request(self.data, {}, manifest, uploads, limits)


InferenceInput = JsonInput | CsvRow | ExampleFile | BatchCall


def from_record(record: Any, manifest: Manifest, *, strict: bool = True) -> v2.InferenceRequest:  # noqa: ANN401 - any JSON
    """Convert one record to a batch of one; unless `strict`, its values are texts, as in a CSV file."""
    signature, steps = list_signatures(manifest)[0], manifest.preprocess
    if not signature.is_raw and isinstance(record, dict) and set(record) == set(signature.input_names):
        return build_infer_request(
            signature, {name: np.array([check_cell(name, value)], object) for name, value in record.items()}
        )
    if isinstance(steps, TablePreprocessing) and isinstance(record, list):
        row = [check_cell(steps.name, value) for value in record]
        return build_infer_request(list_signatures(manifest)[1], {steps.name: np.array([row], object)})
    if not signature.is_raw and isinstance(record, str):
        return build_infer_request(signature, {signature.input_names[0]: np.array([record], object)})
    raw_signature = next(way for way in list_signatures(manifest) if way.is_raw)
    if isinstance(record, dict):
        columns = {name: [value] for name, value in record.items()}
        return build_infer_request(raw_signature, mlflow.tensors_from_columns(columns, manifest, strict=strict))
    return build_infer_request(raw_signature, mlflow.tensors_from_values([record], manifest))


def build_infer_request(signature: CallSignature, tensors: Mapping[str, Array]) -> v2.InferenceRequest:
    """Build a request for all outputs of a signature."""
    return v2.InferenceRequest(None, tensors, [v2.RequestedOutput(spec.name) for spec in signature.outputs])


def check_cell(name: str, value: object) -> str | float | None:
    """Return a single value of a record; raise `InvalidInputError` for a list or an object."""
    if value is None or isinstance(value, str | int | float):
        return value
    raise InvalidInputError(f"{name!r} is {value!r}, expected one number or text.")
