"""Turn PNG and JPEG files into the graph's image input: the only module that imports Pillow.

It knows a request's images and the manifest's steps, not the model. Resizing and cropping are those of torchvision's
`Resize` and `CenterCrop` on Pillow images.
"""

import io
import struct
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageOps

from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import ImagePreprocessing
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.native.calls import NativeCalls
from pilotlight.processing import file_bytes
from pilotlight.processing.input_validation import check_row_count, flatten_column
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array

Image.MAX_IMAGE_PIXELS = None  # it warns at one number and raises at another; `open_images` checks the manifest's
FORMATS = ("PNG", "JPEG")  # no other decoder of Pillow reads a caller's bytes
JPEG_SCAN = b"\xff\xda"  # marker of a scan; compressed data cannot hold it
MAX_JPEG_SCANS = 200  # of a JPEG with its previews; a progressive one has 10, and each is a pass over all pixels
FILE_SIGNATURES = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff"}
# What Pillow raises on broken files. None of it is documented: found by flipping and cutting bytes.
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    EOFError,
    struct.error,
)


def build_image_feeds(steps: ImagePreprocessing, manifest: Manifest, tensor: Array) -> Mapping[str, Array]:
    """Build the graph's image input, (batch, channels, height, width) or channels last; an error names its image."""
    spec = next(spec for spec in manifest.inputs if spec.name == steps.input)
    pictures = open_images(steps, flatten_column(tensor, steps.name))
    pixels = [transform_image(steps, picture, place) for place, picture in enumerate(pictures)]
    for place, array in enumerate(pixels):
        if array.shape != pixels[0].shape:
            sizes = [f"{width} x {height}" for height, width, _ in (array.shape, pixels[0].shape)]
            raise build_image_error(
                place, f"is {sizes[0]} and image 0 is {sizes[1]}; the model resizes none, send equal sizes"
            )
    batch = normalise_pixels(steps, np.stack(pixels))
    if steps.layout == "NCHW":
        batch = batch.transpose(0, 3, 1, 2)
    dtype = NUMPY_DTYPES[spec.datatype]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        batch = np.rint(batch).clip(limits.min, limits.max)
    return {steps.input: np.ascontiguousarray(batch, dtype)}


def open_images(steps: ImagePreprocessing, elements: Array) -> list[Image.Image]:
    """Open the images and read their headers without decoding; refuse them if they are too large together."""
    check_row_count(steps, len(elements))
    pictures = [read_image_header(decode_file_bytes(element, place), place) for place, element in enumerate(elements)]
    check_pixel_count(steps, [picture.size for picture in pictures], "have")
    resized = [compute_resized_size(steps, picture, place) for place, picture in enumerate(pictures)]
    check_pixel_count(steps, resized, "are resized to")
    return pictures


def check_pixel_count(steps: ImagePreprocessing, sizes: Sequence[tuple[int, int]], verb: str) -> None:
    """Refuse images that have more pixels together than the manifest allows."""
    pixels = sum(width * height for width, height in sizes)
    if pixels > steps.max_pixels:
        examples = ", ".join(f"{width} x {height}" for width, height in sizes[:8])
        raise TooLargeError(
            f"The request's images {verb} {pixels:,} pixels together ({examples}), more than {steps.max_pixels:,}; "
            f"send smaller ones, or about {len(sizes) * steps.max_pixels // pixels} of these {len(sizes)} at once."
        )


def decode_file_bytes(element: bytes | str, index: int) -> bytes:
    """Decode a file's bytes; the error names the image."""
    try:
        return file_bytes.decode_file_bytes(element)
    except InvalidInputError as exc:
        raise build_image_error(index, str(exc)) from exc


def read_image_header(file: bytes, index: int) -> Image.Image:
    """Open an image and read its header, which has the size and the mode."""
    if not file.startswith(tuple(FILE_SIGNATURES.values())):
        raise build_image_error(index, f"is neither PNG nor JPEG: its {len(file)} bytes start with {file[:8]!r}")
    scans = file.count(JPEG_SCAN) if file.startswith(FILE_SIGNATURES["JPEG"]) else 0
    if scans > MAX_JPEG_SCANS:
        raise build_image_error(index, f"has {scans:,} scans, more than {MAX_JPEG_SCANS}; save it as baseline JPEG")
    with guard_pillow(index, "cannot be read"):
        picture = Image.open(io.BytesIO(file), formats=FORMATS)
        # A phone's JPEG may have two images.
        frames = getattr(picture, "n_frames", 1) if picture.format == "PNG" else 1
    if frames > 1:
        raise build_image_error(index, f"is animated with {frames} frames; send one of them")
    return picture


def guard_pillow(index: int, failure: str) -> NativeCalls:
    """Create a guard for calls of Pillow whose errors name the image."""
    return NativeCalls("Pillow", lambda cause: build_image_error(index, f"{failure}: {cause}"), PILLOW_ERRORS)


def transform_image(steps: ImagePreprocessing, picture: Image.Image, index: int) -> Array:
    """Decode, rotate, convert, resize and crop an image by the steps: uint8, (height, width, channels)."""
    with guard_pillow(index, "is damaged"):
        ImageOps.exif_transpose(picture, in_place=True)
        coloured = convert_colours(steps, picture)
        size = compute_resized_size(steps, coloured, index)
        pixels = np.asarray(crop_centre(steps, coloured.resize(size, Image.Resampling[steps.filter.upper()])))
    if steps.colour == "BGR":
        pixels = pixels[..., ::-1]
    return pixels if pixels.ndim == 3 else pixels[..., None]


def convert_colours(steps: ImagePreprocessing, picture: Image.Image) -> Image.Image:
    """Convert any mode of PNG and JPEG to RGB or grey; 16 bits become their upper 8, transparency is laid over grey."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if steps.background is not None:
            ground = Image.new("RGBA", picture.size, (*[steps.background] * 3, 255))
            picture = Image.alpha_composite(ground, picture)
    mode = "L" if steps.colour == "L" else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)  # convert would copy it


def compute_resized_size(steps: ImagePreprocessing, picture: Image.Image, index: int) -> tuple[int, int]:
    """Compute (width, height) after resizing; refuse a thin strip that would grow beyond the limit."""
    if steps.resize is not None:
        return steps.resize[1], steps.resize[0]
    if steps.shortest is None:
        return picture.size
    short, long = sorted(picture.size)
    longer = steps.shortest * long // short
    if steps.shortest * longer > steps.max_pixels:
        target = f"{steps.shortest} x {longer:,}, more than {steps.max_pixels:,} pixels"
        raise build_image_error(
            index, f"is {picture.width} x {picture.height} and would be resized to {target}; cut it first"
        )
    return (steps.shortest, longer) if picture.width <= picture.height else (longer, steps.shortest)


def crop_centre(steps: ImagePreprocessing, picture: Image.Image) -> Image.Image:
    """Crop the centre, black where the crop exceeds the image."""
    if steps.crop is None:
        return picture
    top, left = (compute_crop_offset(*sides) for sides in zip((picture.height, picture.width), steps.crop, strict=True))
    return picture.crop((left, top, left + steps.crop[1], top + steps.crop[0]))


def compute_crop_offset(length: int, target: int) -> int:
    """Compute the centre's offset along one side, with torchvision's rounding; negative if the side is too short."""
    return round((length - target) / 2) if length >= target else -((target - length) // 2)


def normalise_pixels(steps: ImagePreprocessing, pixels: Array) -> Array:
    """Compute (pixel * scale - mean) / deviation with one multiplication and one addition, in float32."""
    mean, deviation = np.array(steps.mean or (0.0,)), np.array(steps.deviation or (1.0,))
    factor, summand = (steps.scale / deviation).astype(np.float32), (-mean / deviation).astype(np.float32)
    scaled = np.asarray(pixels * factor)
    scaled += summand  # in place: a copy of a large batch is hundreds of MB
    return scaled


def build_image_error(index: int, reason: str) -> InvalidInputError:
    """Build the error for one of a request's images."""
    return InvalidInputError(f"Image {index} {reason}.")
