"""Check the graph's own tensors against the manifest, whether they come from the caller or from a step.

The module knows names, shapes and what a quantized graph can take, not what the numbers mean.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.processing import Preprocessing, TablePreprocessing
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.runtime.datatypes import Array

# Of the 16-bit types: all bits of the exponent, which infinities and NaN have, with the rest below.
EXPONENT_BITS = {"FP16": 0x7C00, "BF16": 0x7F80}
ROW_KINDS = {"image": "images", "audio": "audio files", "text": "texts"}  # by the kind of the steps
LARGEST_FP32 = float(np.finfo(np.float32).max)


def check_row_count(steps: Preprocessing | None, count: int) -> None:
    """Refuse more images or texts than a request may have; it needs their number alone, not the elements."""
    if steps is None or isinstance(steps, TablePreprocessing):
        return
    if count > steps.max_rows:
        kind = ROW_KINDS[str(steps.__struct_config__.tag)]
        raise TooLargeError(f"The request has {count:,} {kind}; send {steps.max_rows:,} at most at once.")


def check_feeds(manifest: Manifest, tensors: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return the tensors as feeds for the graph; `InvalidInputError` if they do not match the manifest."""
    check_input_names(manifest, [spec.name for spec in manifest.inputs], tensors)
    sizes: dict[str, int] = {}
    for spec in manifest.inputs:
        check_feed_shape(spec, tensors[spec.name].shape, sizes)
    if manifest.serve != "fp32" and not leaves_nan_to_graph(manifest):
        for spec in manifest.inputs:
            check_quantizable(manifest, spec, tensors[spec.name])
    return tensors


def leaves_nan_to_graph(manifest: Manifest) -> bool:
    """Return whether the model's steps leave missing numbers to the graph as NaN."""
    steps = manifest.preprocess
    return isinstance(steps, TablePreprocessing) and any(column.missing == "nan" for column in steps.columns)


def check_quantizable(manifest: Manifest, spec: TensorSpec, tensor: Array) -> None:
    """Refuse NaN, infinities, and a range beyond FP32's: scaled to integers, they become ordinary values.

    The graph in fp32 would answer NaN; in int8 it answers a class with confidence. It takes 0.02 ms for 1 MB.
    """
    if not tensor.size or has_finite_range(spec, tensor):
        return
    values = to_floats(spec, tensor)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        place = tuple(wrong[0].tolist())
        found = f"{values[place]} in row {place[0] if place else 0} (at {list(place)}), and {len(wrong)} such values"
    else:
        found = f"values from {values.min():.3g} to {values.max():.3g}, a range beyond FP32's"
    raise InvalidInputError(
        f"Input {spec.name!r} has {found}; {manifest.name}:{manifest.version} is served in {manifest.serve}, which "
        "scales inputs to integers and cannot tell them apart: send finite numbers."
    )


def has_finite_range(spec: TensorSpec, tensor: Array) -> bool:
    """Return whether the values are finite, and so is their range in FP32; True for integers and texts."""
    if spec.datatype in EXPONENT_BITS:
        return bool((tensor.view(np.uint16) & 0x7FFF).max() < EXPONENT_BITS[spec.datatype])
    if spec.datatype not in ("FP32", "FP64"):
        return True
    return float(tensor.max()) - float(tensor.min()) <= LARGEST_FP32  # NaN is in both, and compares as False


def to_floats(spec: TensorSpec, tensor: Array) -> Array:
    """Convert a tensor of floats to float64; BF16 comes as bits, which are the upper half of FP32's."""
    if spec.datatype == "BF16":
        return (tensor.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return tensor.astype(np.float64)


def check_input_names(manifest: Manifest, expected_names: Sequence[str], tensors: Mapping[str, Array]) -> None:
    """Check that every input is there, and none that the model does not have."""
    if len(expected_names) == len(tensors) and all(map(tensors.__contains__, expected_names)):
        return
    missing = [name for name in expected_names if name not in tensors]
    extra = [name for name in tensors if name not in expected_names]
    if missing or extra:
        wrong = [f"{name!r} is missing" for name in missing] + [f"{name!r} is not one of them" for name in extra]
        raise InvalidInputError(f"{manifest.name} has the inputs {list(expected_names)}; {', '.join(wrong)}.")


def check_feed_shape(spec: TensorSpec, shape: tuple[int, ...], sizes: dict[str, int]) -> None:
    """Check that fixed dimensions match, free ones of the same name are equal, and there is at least one example."""
    if len(shape) != len(spec.shape):
        raise build_shape_error(spec, shape, f"it has {len(shape)} dimensions, not {len(spec.shape)}")
    for position, (found, wanted) in enumerate(zip(shape, spec.shape, strict=True)):
        if isinstance(wanted, int):
            if found != wanted:
                raise build_shape_error(spec, shape, f"dimension {position} is {found}, not {wanted}")
        elif found == 0 and position == 0:
            raise build_shape_error(spec, shape, f"dimension 0 ({wanted}), the batch, is empty; send at least one")
        elif sizes.setdefault(wanted, found) != found:
            raise build_shape_error(
                spec, shape, f"dimension {position} ({wanted}) is {found}, elsewhere {sizes[wanted]}"
            )


def build_shape_error(spec: TensorSpec, shape: tuple[int, ...], reason: str) -> InvalidInputError:
    """Build the error that shows both shapes, the expected one with the names of its free dimensions."""
    expected = f"[{', '.join(map(str, spec.shape))}]"
    return InvalidInputError(f"Input {spec.name!r} has shape {list(shape)}, expected {expected}: {reason}.")


def flatten_column(tensor: Array, name: str) -> Array:
    """Flatten an input with one element for each example, [batch] or [batch, 1], to [batch]; at least one."""
    if tensor.ndim not in {1, 2} or tensor.shape[1:] not in {(), (1,)} or not tensor.size:
        raise InvalidInputError(f"Input {name!r} has shape {list(tensor.shape)}, expected [batch] of at least one.")
    return tensor.reshape(-1)
