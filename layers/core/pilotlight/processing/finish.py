"""The finishes of detection, texts and masks: what they need beside their arrays, and what a request may adjust.

They are imported with the first version that has one, since no other cold start needs them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import (
    CtcPostprocessing,
    DetectionPostprocessing,
    ImagePreprocessing,
    SegmentationPostprocessing,
)
from pilotlight.errors import InvalidInputError
from pilotlight.processing import ctc_text, detection, segmentation
from pilotlight.processing.image_geometry import ImageGeometry, Size
from pilotlight.runtime.datatypes import Array

Adjustable = TypeVar("Adjustable", DetectionPostprocessing, SegmentationPostprocessing)
Finish = DetectionPostprocessing | CtcPostprocessing | SegmentationPostprocessing


def build_outputs(
    manifest: Manifest,
    steps: Finish,
    results: Mapping[str, Array],
    feeds: Mapping[str, Array],
    geometries: Sequence[ImageGeometry],
    parameters: Mapping[str, Any],
) -> dict[str, Array]:
    """Build the caller's outputs, by the steps as the parameters of the request adjust them."""
    if isinstance(steps, CtcPostprocessing):
        return ctc_text.build_texts(steps, manifest.labels, results[steps.output])
    size = get_input_size(manifest, feeds)
    if isinstance(steps, DetectionPostprocessing):
        return detection.build_detections(adjust_steps(steps, parameters), manifest.labels, results, geometries, size)
    return segmentation.build_masks(
        adjust_steps(steps, parameters), manifest.labels, results[steps.output], geometries, size
    )


def adjust_steps(steps: Adjustable, parameters: Mapping[str, Any]) -> Adjustable:
    """Adjust the steps by those parameters that they let a request change."""
    given = {name: parameters[name] for name in steps.adjustable if parameters.get(name) is not None}
    if not given:
        return steps
    try:
        return msgspec.convert(msgspec.to_builtins(steps) | given, type(steps))
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"The parameters {given} are not served: {exc}.") from exc


def get_input_size(manifest: Manifest, feeds: Mapping[str, Array]) -> Size:
    """Return the (width, height) of the graph's image input: that of the steps, else the first with a place for one."""
    steps = manifest.preprocess
    if isinstance(steps, ImagePreprocessing):
        shape, is_last = feeds[steps.input].shape, steps.layout == "NHWC"
    else:
        shape = next((feed.shape for feed in feeds.values() if feed.ndim >= 3), (1, 1, 1))
        is_last = shape[-1] in (1, 3)
    height, width = shape[-3:-1] if is_last else shape[-2:]
    return int(width), int(height)
