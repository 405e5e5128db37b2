"""Folders of images: PNG or JPEG files, each in the sub-folder that has its class's name. Pillow reads them.

An alpha channel is dropped, and a palette converted to its colours.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from functions.train.data import Array
from functions.train.data.files import DataFile
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import ImageOptions

EXTENSIONS = (".png", ".jpg", ".jpeg")
GREY_MODES = ("1", "L", "LA")  # Pillow's modes without colour, of 8 bits
CHANNEL_NAMES = {"grey": ("grey",), "rgb": ("red", "green", "blue")}
PILLOW_MODES = {"grey": "L", "rgb": "RGB"}


def read_images(files: Sequence[DataFile], options: ImageOptions) -> tuple[Array, Array, tuple[str, ...]]:
    """Read images float32 (N, channels, height, width), 0 to 255, with their classes (N,) and the channels' names."""
    pictures = [load_image_file(file) for file in files]
    mode = options.mode or ("grey" if all(picture.mode in GREY_MODES for picture in pictures) else "rgb")
    sized = [resize_to_recipe(picture.convert(PILLOW_MODES[mode]), options) for picture in pictures]
    check_image_sizes(files, sized)
    pixels = np.stack([np.asarray(picture, np.float32).reshape(*picture.size[::-1], -1) for picture in sized])
    return (
        np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)),
        np.array([parse_class_label(file) for file in files]),
        CHANNEL_NAMES[mode],
    )


def parse_class_label(file: DataFile) -> str:
    """Return the class of an image: the name of its folder."""
    parts = PurePosixPath(file.name).parts
    if len(parts) < 2:
        raise InvalidInputError(f"The image {file.name} lies in no sub-folder, which would be called like its class.")
    return parts[-2]


def load_image_file(file: DataFile) -> Image.Image:
    """Load and decode an image."""
    with file.local_path() as path:
        try:
            picture = decode_upright(path)
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombWarning) as exc:
            raise InvalidInputError(f"The image {file.name} cannot be read as PNG or JPEG.") from exc
        except Image.DecompressionBombError as exc:
            raise InvalidInputError(f"The image {file.name} has more pixels than it may have: {exc}") from exc
    if picture.mode.startswith(("I", "F")):  # Pillow would cut them off
        raise InvalidInputError(f"The image {file.name} has 16 bits for each channel; save it with 8.")
    return picture


def decode_upright(path: Path) -> Image.Image:
    """Decode an image and rotate it upright."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            picture.load()
            return ImageOps.exif_transpose(picture)  # as it is served; gives a copy where nothing is to be turned


def resize_to_recipe(picture: Image.Image, options: ImageOptions) -> Image.Image:
    """Resize an image to the size in the recipe."""
    if options.size is None:
        return picture
    height, width = options.size if isinstance(options.size, tuple) else (options.size, options.size)
    return picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.BILINEAR)


def check_image_sizes(files: Sequence[DataFile], pictures: Sequence[Image.Image]) -> None:
    """Refuse images of different sizes where the recipe names no size."""
    for file, picture in zip(files, pictures, strict=True):
        if picture.size != pictures[0].size:
            sizes = "{} x {} and {} x {}".format(*pictures[0].size, *picture.size)
            raise InvalidInputError(
                f"The images {files[0].name} and {file.name} are {sizes} pixels; data.image.size must say one size."
            )
