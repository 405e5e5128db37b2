"""What stands between a request's tensors and the graph, by the manifest's word.

It knows manifests and arrays, not protocols. The one task so far is `tensor`: arrays in, arrays out.
"""

from collections.abc import Mapping

from pilotlight.contracts import Manifest, TensorSpec
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.session import Array


def prepare(manifest: Manifest, tensors: Mapping[str, Array]) -> Mapping[str, Array]:
    """The feeds for the graph; `InvalidInputError` when the tensors are not those that the manifest asks for.

    Datatypes are the protocol's to check, since they decide how bytes become arrays.
    """
    check_names(manifest, tensors)
    sizes: dict[str, int] = {}
    for spec in manifest.inputs:
        check_shape(spec, tensors[spec.name].shape, sizes)
    return tensors


def check_names(manifest: Manifest, tensors: Mapping[str, Array]) -> None:
    """Every input there, and none that the model does not have."""
    wanted = [spec.name for spec in manifest.inputs]
    missing = [name for name in wanted if name not in tensors]
    extra = [name for name in tensors if name not in wanted]
    if missing or extra:
        wrong = [f"{name!r} is missing" for name in missing] + [f"{name!r} is not one of them" for name in extra]
        raise InvalidInputError(f"{manifest.name} has the inputs {wanted}; {', '.join(wrong)}.")


def check_shape(spec: TensorSpec, shape: tuple[int, ...], sizes: dict[str, int]) -> None:
    """Fixed dimensions as they are; free ones the same wherever they carry the same name; at least one example."""
    if len(shape) != len(spec.shape):
        raise wrong_shape(spec, shape, f"it has {len(shape)} dimensions, not {len(spec.shape)}")
    for position, (found, wanted) in enumerate(zip(shape, spec.shape, strict=True)):
        if isinstance(wanted, int):
            if found != wanted:
                raise wrong_shape(spec, shape, f"dimension {position} is {found}, not {wanted}")
        elif found == 0 and position == 0:
            raise wrong_shape(spec, shape, f"dimension 0 ({wanted}), the batch, is empty; send at least one")
        elif sizes.setdefault(wanted, found) != found:
            raise wrong_shape(spec, shape, f"dimension {position} ({wanted}) is {found}, elsewhere {sizes[wanted]}")


def wrong_shape(spec: TensorSpec, shape: tuple[int, ...], why: str) -> InvalidInputError:
    """The error that shows both shapes, the expected one with the names of its free dimensions."""
    expected = f"[{', '.join(map(str, spec.shape))}]"
    return InvalidInputError(f"Input {spec.name!r} has shape {list(shape)}, expected {expected}: {why}.")
