"""Turn PNG, JPEG and WebP files into the graph's image input: the only module that imports Pillow.

It knows a request's images and the manifest's steps, not the model. Resizing and cropping are those of torchvision's
`Resize` and `CenterCrop` on Pillow images, or OpenCV's.
"""

import io
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.processing import ImagePreprocessing
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.native.calls import NativeCalls
from pilotlight.processing import file_bytes, opencv_resize
from pilotlight.processing.image_files import build_image_error, check_jpeg_scans, find_format, read_webp_size
from pilotlight.processing.image_geometry import (
    ImageGeometry,
    ImagePlan,
    Size,
    compute_pad_offset,
    count_pixels,
    plan_image,
    widen_canvases,
)
from pilotlight.processing.input_validation import check_row_count, flatten_column
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array

Image.MAX_IMAGE_PIXELS = None  # it warns at one number and raises at another; `open_images` checks the manifest's
FORMATS = ("PNG", "JPEG", "WEBP")  # no other decoder of Pillow reads a caller's bytes
OPENCV_FILTERS = {"opencv-linear": opencv_resize.resize_linear, "opencv-area": opencv_resize.resize_area}
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


# How an image is turned upright, by its EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class ImageFile(NamedTuple):
    """A file whose head has been read: its size, and the open image, except of a WebP, whose decoder takes memory."""

    data: bytes
    size: Size
    picture: Image.Image | None


class PreparedImage(NamedTuple):
    """The pixels of an image once resized and cut, uint8 of (height, width, channels), and how they came about."""

    pixels: Array
    plan: ImagePlan


def build_image_feeds(
    steps: ImagePreprocessing, manifest: Manifest, tensor: Array
) -> tuple[Mapping[str, Array], list[ImageGeometry]]:
    """Build the graph's image input, in its layout, and where each image lies in it; an error names its image."""
    spec = next(spec for spec in manifest.inputs if spec.name == steps.input)
    files = open_images(steps, flatten_column(tensor, steps.name))
    images = [transform_image(steps, file, place) for place, file in enumerate(files)]
    batch = stack_images(steps, images)
    if steps.layout == "NCHW":
        batch = batch.transpose(0, 3, 1, 2)
    dtype = NUMPY_DTYPES[spec.datatype]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        batch = np.rint(batch).clip(limits.min, limits.max)
    batch = fit_rank(spec, np.ascontiguousarray(batch, dtype))
    return {steps.input: batch}, [image.plan.geometry for image in images]


def fit_rank(spec: TensorSpec, batch: Array) -> Array:
    """Return the only image for a graph without a batch, such as torchvision's detectors."""
    if len(spec.shape) != batch.ndim - 1:
        return batch
    if len(batch) > 1:
        raise InvalidInputError(f"The request has {len(batch)} images, but the model takes one at once.")
    return np.asarray(batch[0])


def stack_images(steps: ImagePreprocessing, images: Sequence[PreparedImage]) -> Array:
    """Stack the images to a normalised batch, float32; what is padded is filled with the value of padding."""
    sizes = [image.plan.canvas for image in images]
    if steps.height is not None:
        sizes = widen_canvases(steps, sizes)
    for place, size in enumerate(sizes):
        if size != sizes[0]:
            raise build_image_error(
                place,
                f"is {size[0]} x {size[1]} and image 0 is {sizes[0][0]} x {sizes[0][1]}; the model resizes none, send "
                "equal sizes",
            )
    width, height = sizes[0]
    if all(image.pixels.shape[:2] == (height, width) for image in images):
        return normalise_pixels(steps, np.stack([image.pixels for image in images]))
    batch = np.empty((len(images), height, width, steps.channels), np.float32)
    batch[...] = normalise_pixels(steps, np.full(steps.channels, steps.padding, np.float32))
    for target, (pixels, plan) in zip(batch, images, strict=True):
        rows, columns, _ = pixels.shape
        target[plan.top : plan.top + rows, plan.left : plan.left + columns] = normalise_pixels(steps, pixels)
    return batch


def open_images(steps: ImagePreprocessing, elements: Array) -> list[ImageFile]:
    """Open the images and read their headers without decoding; refuse them if they are too large together."""
    check_row_count(steps, len(elements))
    files = [
        read_image_header(steps, decode_file_bytes(element, place), place) for place, element in enumerate(elements)
    ]
    check_pixel_count(steps, [file.size for file in files], "have")
    plans = [plan_growth(steps, file.size, place) for place, file in enumerate(files)]
    check_pixel_count(steps, [plan.resized for plan in plans], "are resized to")
    check_pixel_count(steps, widen_canvases(steps, [plan.canvas for plan in plans]), "are padded to")
    return files


def plan_growth(steps: ImagePreprocessing, size: Size, index: int) -> ImagePlan:
    """Plan an image; refuse a thin strip that would grow beyond the limit on the way."""
    plan = plan_image(steps, size)
    for verb, (width, height) in (("resized", plan.resized), ("padded", plan.padded)):
        if width * height > max(steps.max_pixels, size[0] * size[1]) and not steps.resize:
            target = f"{min(width, height):,} x {max(width, height):,}, more than {steps.max_pixels:,} pixels"
            raise build_image_error(index, f"is {size[0]} x {size[1]} and would be {verb} to {target}; cut it first")
    return plan


def check_pixel_count(steps: ImagePreprocessing, sizes: Sequence[tuple[int, int]], verb: str) -> None:
    """Refuse images that have more pixels together than the manifest allows."""
    pixels = count_pixels(sizes)
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


def read_image_header(steps: ImagePreprocessing, file: bytes, index: int) -> ImageFile:
    """Open an image and read its header, which has the size and the mode."""
    kind = find_format(file, index)
    if kind == "WEBP":
        return ImageFile(file, read_webp_size(steps, file, index), None)
    if kind == "JPEG":
        check_jpeg_scans(file, index)
    picture = open_image(file, index)
    # A phone's JPEG may have two images.
    frames = getattr(picture, "n_frames", 1) if picture.format == "PNG" else 1
    if frames > 1:
        raise build_image_error(index, f"is animated with {frames} frames; send one of them")
    return ImageFile(file, picture.size, picture)


def open_image(file: bytes, index: int) -> Image.Image:
    """Open an image without decoding its pixels."""
    with guard_pillow(index, "cannot be read"):
        return Image.open(io.BytesIO(file), formats=FORMATS)


def guard_pillow(index: int, failure: str) -> NativeCalls:
    """Create a guard for calls of Pillow whose errors name the image."""

    def build_error(cause: str) -> InvalidInputError:
        # Pillow names the object that it reads from, which says nothing to the sender.
        reason = "its header is cut off or damaged" if cause.startswith("cannot identify") else cause
        return build_image_error(index, f"{failure}: {reason}")

    return NativeCalls("Pillow", build_error, PILLOW_ERRORS)


def transform_image(steps: ImagePreprocessing, file: ImageFile, index: int) -> PreparedImage:
    """Decode, rotate, convert, resize and crop an image by the steps."""
    picture = file.picture or open_image(file.data, index)
    with guard_pillow(index, "is damaged"):
        picture = turn_upright(picture)
        plan = plan_image(steps, picture.size)
        resized = resize_image(steps, pad_image(steps, convert_colours(steps, picture), plan), plan.resized)
        pixels = np.asarray(crop_centre(resized, plan) if steps.crop is not None else resized)
    if steps.colour == "BGR":
        pixels = pixels[..., ::-1]
    return PreparedImage(pixels if pixels.ndim == 3 else pixels[..., None], plan)


def turn_upright(picture: Image.Image) -> Image.Image:
    """Turn an image by its EXIF orientation; what of EXIF does not read is ignored, as by every viewer.

    Pillow's own function also writes the EXIF again, which fails for tags that cameras write wrongly.
    """
    picture.load()  # the EXIF of a PNG may be behind its pixels
    try:
        turn = TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except PILLOW_ERRORS:
        return picture
    return picture if turn is None else picture.transpose(turn)


def convert_colours(steps: ImagePreprocessing, picture: Image.Image) -> Image.Image:
    """Convert any mode to RGB or grey; 16 bits become their upper 8, transparency is laid over grey."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if steps.background is not None:
            ground = Image.new("RGBA", picture.size, (*[steps.background] * 3, 255))
            picture = Image.alpha_composite(ground, picture)
    mode = "L" if steps.colour == "L" else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)  # convert would copy it


def pad_image(steps: ImagePreprocessing, picture: Image.Image, plan: ImagePlan) -> Image.Image:
    """Pad an image to the proportions of its letterbox, if that comes before it is resized."""
    if plan.padded == plan.size:
        return picture
    grey = round(steps.padding)
    ground = Image.new(picture.mode, plan.padded, grey if picture.mode == "L" else (grey, grey, grey))
    left, top = (compute_pad_offset(steps, *sides) for sides in zip(plan.size, plan.padded, strict=True))
    ground.paste(picture, (left, top))
    return ground


def resize_image(steps: ImagePreprocessing, picture: Image.Image, size: Size) -> Image.Image:
    """Resize an image by Pillow's filters or by OpenCV's."""
    resize_pixels = OPENCV_FILTERS.get(steps.filter)
    if resize_pixels is None:
        return picture.resize(size, Image.Resampling[steps.filter.upper()])
    pixels = np.asarray(picture)
    resized = resize_pixels(pixels if pixels.ndim == 3 else pixels[..., None], size[1], size[0])
    return Image.fromarray(resized if pixels.ndim == 3 else resized[..., 0])


def crop_centre(picture: Image.Image, plan: ImagePlan) -> Image.Image:
    """Crop the centre, black where the crop exceeds the image."""
    width, height = plan.canvas
    return picture.crop((-plan.left, -plan.top, width - plan.left, height - plan.top))


def normalise_pixels(steps: ImagePreprocessing, pixels: Array) -> Array:
    """Compute (pixel * scale - mean) / deviation with one multiplication and one addition, in float32."""
    mean, deviation = np.array(steps.mean or (0.0,)), np.array(steps.deviation or (1.0,))
    factor, summand = (steps.scale / deviation).astype(np.float32), (-mean / deviation).astype(np.float32)
    scaled = np.asarray(pixels * factor)
    scaled += summand  # in place: a copy of a large batch is hundreds of MB
    return scaled
