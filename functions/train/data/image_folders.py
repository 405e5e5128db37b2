"""Folders of images: PNG, JPEG or WebP files, below a folder that has their class's name.

They are decoded, turned upright, coloured and resized by the code that serves photos, with the steps that the published
version gets, so that a photo has the same pixels in training and in a request. An alpha channel is dropped.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from math import prod
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from functions.train.data import Array
from functions.train.data.files import DataFile
from functions.train.data.memory import measure_available_memory
from functions.train.data.pixels import FilePixels, MemoryPixels, Pixels, PixelSums
from pilotlight.contracts.processing import ImagePreprocessing
from pilotlight.errors import InvalidInputError, StoreError, TooLargeError
from pilotlight.processing import image
from pilotlight.recipes.data_schema import ImageOptions

Result = TypeVar("Result")
Colour = Literal["L", "RGB"]
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
OTHER_EXTENSIONS = (".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".jfif")
GREY_MODES = ("1", "L", "LA")  # Pillow's modes without colour, of 8 bits
CHANNEL_NAMES = {"L": ("grey",), "RGB": ("red", "green", "blue")}
SET_NAMES = {
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "test",
    "testing",
    "eval",
}  # folders that are no classes
MAX_PIXELS = 2 * 89_478_485  # of one image; the limit above which Pillow, too, takes it for an attack
HEADER_STEPS = ImagePreprocessing(input="image", max_pixels=MAX_PIXELS)
MAX_NAMED = 10  # broken images that a message names
MEMORY_SHARE = 0.25  # of the memory that is free, which pixels may take before they stay in their files
DECODERS = 4  # threads at most; Pillow decodes without Python's lock


@dataclass(frozen=True)
class ImageHeader:
    """What the first bytes of an image say."""

    mode: str  # Pillow's
    size: tuple[int, int]  # width and height, as stored


@dataclass(frozen=True, eq=False)
class ImageScan:
    """What one image is, once it is decoded."""

    sums: PixelSums
    digest: bytes  # of its pixels
    shape: tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True, eq=False)
class FolderDecoder:
    """Decodes the images of a folder by the steps that serve them."""

    files: tuple[DataFile, ...]
    steps: ImagePreprocessing
    digests: list[bytes] = field(default_factory=list)  # of the pixels of each, as the first pass found them

    def decode_images(self, positions: Sequence[int]) -> Array:
        """Decode images, uint8 (n, C, H, W); `StoreError` when one is not what it was when it was first read."""
        return np.stack(list(start_decoders().map(self._decode_again, positions)))

    def decode_file(self, position: int) -> Array:
        """Decode an image, uint8 (height, width, channels); `InvalidInputError` says what is wrong with it."""
        opened = open_image(self.files[position])
        return read_as_served(lambda: image.transform_image(self.steps, opened, 0).pixels)

    def scan_image(self, position: int, target: Array | None) -> ImageScan | str:
        """Decode an image for the first time, into `target` (M, C, H, W) if there is one; a text says what is wrong."""
        try:
            pixels = self.decode_file(position)
        except InvalidInputError as exc:
            return str(exc)
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
        if target is not None and planes.shape[1:] == target.shape[1:]:
            target[position] = planes[0]
        return ImageScan(PixelSums.measure(planes), hash_pixels(planes[0]), planes.shape[1:])

    def _decode_again(self, position: int) -> Array:
        changed = StoreError(
            f"The image {self.files[position].name} is not what it was when this run first read it; start a new run."
        )
        try:
            pixels = np.ascontiguousarray(self.decode_file(position).transpose(2, 0, 1))
        except InvalidInputError as exc:
            raise changed from exc
        if hash_pixels(pixels) != self.digests[position]:
            raise changed
        return pixels


@cache
def start_decoders() -> ThreadPoolExecutor:
    """Start the threads that decode images, once for a process."""
    return ThreadPoolExecutor(min(DECODERS, os.cpu_count() or 1), thread_name_prefix="pilotlight-decoder")


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """The images of a folder without those that repeat another of their class."""

    inputs: Pixels
    kept: Array  # indices of these images among the files
    steps: ImagePreprocessing  # from a photo to the graph, which is called "image" here
    channels: tuple[str, ...]
    note: str  # where the pixels are


def read_images(
    files: Sequence[DataFile], classes: Sequence[str], options: ImageOptions, *, streaming: bool = False
) -> ImageFolder:
    """Read all images, of these classes (N,), once: pixels stay in memory, or in their files if they are too many."""
    headers = list(start_decoders().map(read_header, files))
    check_header_sizes(files, headers, options)
    colour = choose_colour(headers, options)
    decoder = FolderDecoder(tuple(files), build_image_steps(options, colour))
    shape = find_image_shape(decoder, headers)
    needed, free = len(files) * prod(shape), measure_available_memory()
    on_disk = streaming or needed > MEMORY_SHARE * free
    target = None if on_disk else np.empty((len(files), *shape), np.uint8)
    scans = scan_images(decoder, headers, target)
    check_scanned_shapes(files, scans)
    decoder.digests.extend(scan.digest for scan in scans)
    kept = find_unique_images(scans, classes)
    sums = PixelSums.join([scan.sums for scan in scans])
    inputs = FilePixels(kept, sums, decoder, shape) if target is None else MemoryPixels(kept, sums, target)
    steps = msgspec.structs.replace(decoder.steps, resize=shape[1:])
    return ImageFolder(inputs, kept, steps, CHANNEL_NAMES[colour], describe_place(needed, free, streaming, on_disk))


def read_header(file: DataFile) -> ImageHeader | str:
    """Read what an image's first bytes say; a text says what is wrong with it."""
    try:
        opened = open_image(file)
    except InvalidInputError as exc:
        return str(exc)
    return ImageHeader(opened.picture.mode, opened.size)


def open_image(file: DataFile) -> Any:  # noqa: ANN401 - its picture is Pillow's, which one module imports
    """Open an image without decoding it; `InvalidInputError` says what is wrong, without its name."""
    try:
        with file.local_path() as path:
            content = path.read_bytes()
    except OSError as exc:
        raise InvalidInputError(f"cannot be read: {exc.strerror or exc}") from exc
    opened = read_as_served(lambda: image.read_image_header(HEADER_STEPS, content, 0))
    if prod(opened.size) > MAX_PIXELS:
        raise InvalidInputError(f"has more pixels than it may have: {prod(opened.size):,} of {MAX_PIXELS:,}")
    # A WebP is not open yet, since its size had to be known first.
    picture = opened.picture or read_as_served(lambda: image.open_image(content, 0))
    if picture.mode.startswith(("I", "F")):  # its lower bits would be cut off
        raise InvalidInputError("has 16 bits for each channel; save it with 8")
    return opened._replace(picture=picture)


def read_as_served(read: Callable[[], Result]) -> Result:
    """Call the code that serves images; what it says of image 0 becomes the end of a sentence about a file."""
    try:
        return read()
    except (InvalidInputError, TooLargeError) as exc:
        reason = str(exc).removeprefix("Image 0 ").rstrip(".")
        raise InvalidInputError(f"cannot be read as PNG, JPEG or WebP: it {reason}") from exc


def choose_colour(headers: Sequence[ImageHeader | str], options: ImageOptions) -> Colour:
    """Choose grey where the recipe says so, or says nothing and every image is."""
    grey = all(isinstance(header, str) or header.mode in GREY_MODES for header in headers)
    mode = options.mode or ("grey" if grey else "rgb")
    return "L" if mode == "grey" else "RGB"


def build_image_steps(options: ImageOptions, colour: Colour) -> ImagePreprocessing:
    """Build the steps from a photo to the graph's input, which is called `image`: pixels of 0 to 255."""
    size = (options.size, options.size) if isinstance(options.size, int) else options.size
    return ImagePreprocessing(input="image", background=None, colour=colour, resize=size, filter="bilinear", scale=1.0)


def find_image_shape(decoder: FolderDecoder, headers: Sequence[ImageHeader | str]) -> tuple[int, int, int]:
    """Find the channels, height and width of all images: the recipe's, or else those of the first that is whole."""
    for place, header in enumerate(headers):
        if decoder.steps.resize is not None:
            return decoder.steps.channels, *decoder.steps.resize
        if isinstance(header, ImageHeader) and isinstance(scan := decoder.scan_image(place, None), ImageScan):
            return scan.shape
    raise build_broken_images_error(decoder.files, [header for header in headers if isinstance(header, str)])


def scan_images(decoder: FolderDecoder, headers: Sequence[ImageHeader | str], target: Array | None) -> list[ImageScan]:
    """Decode every image once; `InvalidInputError` names those that cannot be, all of them counted."""

    def scan(place: int) -> ImageScan | str:
        header = headers[place]
        return header if isinstance(header, str) else decoder.scan_image(place, target)

    found = list(start_decoders().map(scan, range(len(headers))))
    broken = [place for place, result in enumerate(found) if isinstance(result, str)]
    if broken:
        reasons = [str(found[place]) for place in broken]
        raise build_broken_images_error([decoder.files[place] for place in broken], reasons, len(found))
    return [result for result in found if isinstance(result, ImageScan)]


def build_broken_images_error(
    files: Sequence[DataFile], reasons: Sequence[str], image_count: int = 0
) -> InvalidInputError:
    """Build the error for images that cannot be learned from."""
    named = [f"{file.name} {reason}" for file, reason in zip(files, reasons, strict=False)]
    if len(reasons) == 1:
        return InvalidInputError(f"The image {named[0]}.")
    more = f"; and {len(named) - MAX_NAMED:,} more" if len(named) > MAX_NAMED else ""
    counted = f"{len(reasons):,} of {image_count or len(reasons):,} images cannot be learned from; delete or mend them"
    return InvalidInputError(f"{counted}: {'; '.join(named[:MAX_NAMED])}{more}.")


def check_header_sizes(files: Sequence[DataFile], headers: Sequence[ImageHeader | str], options: ImageOptions) -> None:
    """Refuse images of different sizes, turned or not, where the recipe names no size: before any is decoded."""
    if options.size is not None:
        return
    sized = [
        (file, header.size) for file, header in zip(files, headers, strict=True) if isinstance(header, ImageHeader)
    ]
    check_equal_sizes([(file.name, size, tuple(sorted(size))) for file, size in sized])


def check_scanned_shapes(files: Sequence[DataFile], scans: Sequence[ImageScan]) -> None:
    """Refuse images of different sizes once they are turned upright."""
    shapes = [(file.name, scan.shape[:0:-1], scan.shape) for file, scan in zip(files, scans, strict=True)]
    check_equal_sizes(shapes)


def check_equal_sizes(images: Sequence[tuple[str, Sequence[int], tuple[int, ...]]]) -> None:
    """Refuse images, as (name, size, what must be equal), that are of different sizes."""
    for name, size, key in images:
        if key != images[0][2]:
            sizes = "{} x {} and {} x {}".format(*images[0][1], *size)
            kinds = len({found for _, _, found in images})
            more = f", and there are {kinds:,} sizes in all" if kinds > 2 else ""
            raise InvalidInputError(
                f"The images {images[0][0]} and {name} are {sizes} pixels{more}; data.image.size must say one size."
            )


def hash_pixels(image_planes: Array) -> bytes:
    """Hash the pixels of an image."""
    return blake2b(image_planes.data, digest_size=16).digest()


def find_unique_images(scans: Sequence[ImageScan], classes: Sequence[str]) -> Array:
    """Find the indices, ascending, of the images that repeat no earlier one of their class."""
    first: dict[tuple[bytes, str], int] = {}
    for place, (scan, name) in enumerate(zip(scans, classes, strict=True)):
        first.setdefault((scan.digest, name), place)
    return np.array(list(first.values()), np.int64)


def describe_place(needed: int, free: int, streaming: bool, on_disk: bool) -> str:
    """Describe where the pixels are while the model learns."""
    size = f"{needed / 1e6:,.0f} MB of pixels"
    if not on_disk:
        return f"images: {size} are in memory"
    why = "as data.streaming says" if streaming else f"since {free / 1e6:,.0f} MB of memory are free"
    return f"images: {size} are decoded from their files in each pass, {why}"


def parse_class_label(file: DataFile) -> str:
    """Return the class of an image: the name of the first folder below the data set's."""
    parts = PurePosixPath(file.name).parts
    if len(parts) < 2:
        raise InvalidInputError(f"The image {file.name} lies in no sub-folder, which would be called like its class.")
    return parts[0]


def parse_groups(files: Sequence[DataFile], rule: str) -> Array:
    """Parse the group of each image, (N,), by the folder below its class or a pattern of file names."""
    if rule == "folder":
        return np.array([find_group_folder(file) for file in files])
    words = (re.escape(word) for word in re.split(r"(\*|\{group\})", rule))
    pattern = re.compile("".join({r"\*": ".*?", r"\{group\}": "(.+?)"}.get(word, word) for word in words))
    found = [pattern.fullmatch(PurePosixPath(file.name).name) for file in files]
    if odd := [file.name for file, match in zip(files, found, strict=True) if match is None]:
        raise InvalidInputError(
            f"data.group is {rule!r}, which {len(odd):,} of {len(files):,} images' names do not match, "
            f"such as {odd[0]}."
        )
    return np.array([match[1] for match in found if match is not None])


def find_group_folder(file: DataFile) -> str:
    """Return the folder below the class of an image, which says its group."""
    parts = PurePosixPath(file.name).parts
    if len(parts) < 3:
        raise InvalidInputError(
            f"data.group is folder, and the image {file.name} lies in none below its class, as in class/group/1.png."
        )
    return parts[1]


def check_class_folders(classes: Sequence[str]) -> None:
    """Refuse folders that are called like sets, and so hold the classes' folders."""
    names = sorted(set(classes))
    if len(names) > 1 and {name.lower() for name in names} <= SET_NAMES:
        raise InvalidInputError(
            f"data.path holds the folders {', '.join(names)}, which are called like sets, not like classes; name each "
            "by itself: data.path, data.validation and data.test."
        )


def describe_other_files(names: Sequence[str]) -> str:
    """Describe the images in other formats, which are left out."""
    counts = Counter(PurePosixPath(name).suffix.lower() for name in names)
    found = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(counts.items()))
    left_out = f"left out {len(names):,} files that are neither PNG, JPEG nor WebP ({found})"
    return f"{left_out}; save them as such to learn from them"
