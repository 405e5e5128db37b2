"""Check the graph's own tensors against the manifest, whether they come from the caller or from a step.

The module knows names and shapes, not what the numbers mean.
"""

from collections.abc import Mapping, Sequence

from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import Array


def check_feeds(manifest: Manifest, tensors: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return the tensors as feeds for the graph; `InvalidInputError` if they do not match the manifest."""
    check_input_names(manifest, [spec.name for spec in manifest.inputs], tensors)
    sizes: dict[str, int] = {}
    for spec in manifest.inputs:
        check_feed_shape(spec, tensors[spec.name].shape, sizes)
    return tensors


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
