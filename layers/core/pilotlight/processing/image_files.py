"""Read the head of image files before any decoder sees them: format, and the size of a WebP.

Only PNG, JPEG and WebP are decoded: every decoder more is one more that reads a caller's bytes. The module knows bytes,
not pixels.
"""

from pilotlight.contracts.processing import ImagePreprocessing
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.processing.file_bytes import describe_other_format

JPEG_SCAN = b"\xff\xda"  # marker of a scan; compressed data cannot hold it
MAX_JPEG_SCANS = 200  # of a JPEG with its previews; a progressive one has 10, and each is a pass over all pixels
FILE_SIGNATURES = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff"}
WEBP_ANIMATED = 0x02  # flag of a VP8X chunk
# What people send beside them, by the bytes at a place.
OTHER_FORMATS = (
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"8BPS", "Photoshop"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"DICM", "DICOM"),
    (128, b"DICM", "DICOM"),
    (0, b"%PDF", "PDF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphe", "HEIC, as iPhones write it"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftyp", "a video"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML, perhaps SVG"),
    (0, b"<!DOCTYPE", "an HTML page, and no image"),
    (0, b"<html", "an HTML page, and no image"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x93NUMPY", "an array of numpy"),
    *((0, b"P%d" % kind, "PNM") for kind in range(1, 8)),
)


def find_format(file: bytes, index: int) -> str:
    """Find the format of a file that is decoded; an error says what another one is."""
    for name, signature in FILE_SIGNATURES.items():
        if file.startswith(signature):
            return name
    if file[:4] == b"RIFF" and file[8:12] == b"WEBP":
        return "WEBP"
    hint = describe_other_format(file, OTHER_FORMATS, "JPEG, PNG or WebP")
    raise build_image_error(index, f"is neither PNG nor JPEG: its {len(file)} bytes start with {file[:8]!r}{hint}")


def check_jpeg_scans(file: bytes, index: int) -> None:
    """Refuse a JPEG of more scans than anybody writes."""
    scans = file.count(JPEG_SCAN)
    if scans > MAX_JPEG_SCANS:
        raise build_image_error(index, f"has {scans:,} scans, more than {MAX_JPEG_SCANS}; save it as baseline JPEG")


def read_webp_size(steps: ImagePreprocessing, file: bytes, index: int) -> tuple[int, int]:
    """Read (width, height) of a WebP; refuse an animated or a large one, since its decoder allocates when it opens."""
    kind, data = file[12:16], file[20:]
    if kind == b"VP8X" and len(data) >= 10:
        if data[0] & WEBP_ANIMATED:
            raise build_image_error(index, "is an animated WebP; send one of its frames")
        size = 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    elif kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a" and len(data) >= 10:
        size = int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
    elif kind == b"VP8L" and len(data) >= 5:
        bits = int.from_bytes(data[1:5], "little")
        size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        raise build_image_error(index, "cannot be read: its WebP has no head")
    if size[0] * size[1] > steps.max_pixels:
        raise TooLargeError(
            f"Image {index} has {size[0] * size[1]:,} pixels ({size[0]} x {size[1]}), more than {steps.max_pixels:,}; "
            "send a smaller one."
        )
    return size


def build_image_error(index: int, reason: str) -> InvalidInputError:
    """Build the error for one of a request's images."""
    return InvalidInputError(f"Image {index} {reason}.")
