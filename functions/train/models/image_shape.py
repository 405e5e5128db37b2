"""Whether data has the shape that an architecture takes."""

from pilotlight.errors import InvalidInputError


def parse_image_shape(architecture: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the channels, height and width of an example; `InvalidInputError` when it is not an image."""
    if len(shape) != 3:
        raise InvalidInputError(
            f"model.architecture is {architecture!r}, which takes images, not {describe_shape(shape)}; use 'mlp'."
        )
    channels, height, width = shape
    return channels, height, width


def describe_shape(shape: tuple[int, ...]) -> str:
    """Describe the shape of an example."""
    return f"examples of {' x '.join(map(str, shape))} values"
