"""Images on their way to the graph: letterboxes, lines of text, free sizes, and the way back to the caller's pixels."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from pilotlight import processing
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.processing import ImagePreprocessing
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.processing.image_geometry import plan_image
from pilotlight.runtime.datatypes import Array
from tests import fakes

SIDES = st.integers(1, 3000)


def steps(**fields: object) -> ImagePreprocessing:
    return ImagePreprocessing(**{"input": "x", "scale": 1.0, "layout": "NHWC", "filter": "nearest", **fields})  # type: ignore[arg-type]  # fields by name


def feed(
    settings: ImagePreprocessing, *pictures: Pillow.Image, shape: tuple[int | str, ...] = ("n", "h", "w", 3)
) -> Array:
    """The graph's input for the pictures."""
    manifest = fakes.stepped(settings, of=((TensorSpec("x", "FP32", shape),), fakes.ROW[1]))
    elements = np.empty(len(pictures), object)
    elements[:] = [encode(picture) for picture in pictures]
    return processing.prepare_inputs(manifest, {"image": elements}).feeds["x"]


def encode(picture: Pillow.Image) -> bytes:
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


def plain(width: int, height: int, colour: tuple[int, int, int] = (9, 8, 7)) -> Pillow.Image:
    return Pillow.new("RGB", (width, height), colour)


def test_a_letterbox_keeps_the_proportions_and_pads_the_rest() -> None:
    found = feed(steps(letterbox=(4, 4), padding=114), plain(8, 4))[0]
    assert (found[:2] == (9, 8, 7)).all()
    assert (found[2:] == 114).all()
    centred = feed(steps(letterbox=(4, 4), padding=114, pad_position="centre"), plain(4, 8))[0]
    assert (centred[:, 1:3] == (9, 8, 7)).all()
    assert (centred[:, [0, 3]] == 114).all()


def test_padding_comes_first_where_the_steps_say_so() -> None:
    found = feed(steps(letterbox=(4, 4), pad_first=True, filter="opencv-linear"), plain(8, 4, (200, 100, 0)))[0]
    assert found[0, 0].tolist() == [200, 100, 0]
    assert found[3].max() == 0
    plan = plan_image(steps(letterbox=(320, 320), pad_first=True), (640, 427))
    assert (plan.padded, plan.resized) == ((640, 640), (320, 320))
    assert (plan.geometry.scale_x, plan.geometry.left) == (0.5, 0)


def test_padding_may_be_half_of_the_range_which_is_nothing_once_normalised() -> None:
    settings = steps(height=4, min_width=6, padding=127.5, mean=(0.5,), deviation=(0.5,), scale=1 / 255)
    found = feed(settings, plain(4, 4, (255, 255, 255)))[0]
    np.testing.assert_allclose(found[:, :4], 1, atol=1e-6)
    np.testing.assert_allclose(found[:, 4:], 0, atol=1e-6)


def test_lines_of_text_are_as_wide_as_the_widest() -> None:
    found = feed(steps(height=4), plain(8, 8), plain(20, 4), plain(3, 4))
    assert found.shape == (3, 4, 20, 3)
    assert [int((row[0, :, 0] == 9).sum()) for row in found] == [4, 20, 3]
    assert feed(steps(height=4, max_width=5), plain(20, 4)).shape == (1, 4, 5, 3)
    assert feed(steps(height=4, min_width=9), plain(8, 8)).shape == (1, 4, 9, 3)


@pytest.mark.parametrize(("rounding", "width"), [("floor", 10), ("nearest", 11), ("ceiling", 11)])
def test_sides_are_rounded_as_the_steps_say(rounding: str, width: int) -> None:
    assert plan_image(steps(height=4, min_width=20, rounding=rounding), (16, 6)).resized == (width, 4)  # 10.67
    assert plan_image(steps(height=4, rounding=rounding), (16, 6)).resized[0] == 10  # wider than any padding


def test_sides_become_multiples() -> None:
    assert plan_image(steps(at_least=736, multiple=32), (640, 427)).resized == (1088, 736)  # 1103, 736
    assert plan_image(steps(at_least=736, multiple=32), (800, 800)).resized == (800, 800)
    assert plan_image(steps(at_most=960, multiple=32), (1920, 20)).resized == (960, 32)
    assert plan_image(steps(multiple=32), (3, 70)).resized == (32, 64)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["corner", "centre"]), st.booleans())
def test_boxes_find_their_way_back(
    width: int, height: int, rows: int, columns: int, position: str, pad_first: bool
) -> None:
    settings = steps(letterbox=(rows, columns), pad_position=position, pad_first=pad_first, rounding="nearest")
    plan = plan_image(settings, (width, height))
    assert plan.canvas == (columns, rows)
    assert plan.resized[0] <= columns
    assert plan.resized[1] <= rows
    place = plan.geometry
    corners = [place.left, place.top, place.left + width * place.scale_x, place.top + height * place.scale_y]
    np.testing.assert_allclose(place.restore_boxes(np.array([corners])), [[0, 0, width, height]], atol=1e-6)
    assert -1 <= place.left <= columns
    assert corners[2] <= columns + 1e-6
    assert corners[3] <= rows + 1e-6


def test_a_crop_moves_boxes_too() -> None:
    place = plan_image(steps(resize=(8, 8), crop=(4, 4)), (16, 16)).geometry
    assert place.restore_boxes(np.array([[0, 0, 4, 4]])).tolist() == [[4, 4, 12, 12]]


def test_geometry_is_that_of_the_upright_photo() -> None:
    target = io.BytesIO()
    exif = Pillow.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    plain(20, 10).save(target, "JPEG", exif=exif)
    manifest = fakes.stepped(steps(letterbox=(8, 8)), of=((TensorSpec("x", "FP32", ("n", 8, 8, 3)),), fakes.ROW[1]))
    (place,) = processing.prepare_inputs(manifest, {"image": np.array([target.getvalue()], object)}).geometries
    assert (place.width, place.height, place.scale_x) == (10, 20, 0.4)


def test_a_graph_without_a_batch_takes_one_image() -> None:
    assert feed(steps(), plain(4, 3), shape=("h", "w", 3)).shape == (3, 4, 3)
    with pytest.raises(InvalidInputError, match="has 2 images, but the model takes one at once"):
        feed(steps(), plain(4, 3), plain(4, 3), shape=("h", "w", 3))


def test_padding_and_growth_are_weighed_before_anything_is_decoded() -> None:
    dot, strip = plain(1, 1), plain(3000, 1)
    with pytest.raises(
        TooLargeError, match=r"are padded to 1,638,400 pixels together \(1280 x 1280\), more than 1,000"
    ):
        feed(steps(letterbox=(1280, 1280), max_pixels=1_000_000), strip)
    with pytest.raises(
        InvalidInputError, match="is 3000 x 1 and would be padded to 3,000 x 3,000, more than 1,000,000"
    ):
        feed(steps(letterbox=(8, 8), pad_first=True, max_pixels=1_000_000), strip)
    with pytest.raises(InvalidInputError, match="is 3000 x 1 and would be resized to 48 x 144,000, more than"):
        feed(steps(height=48, max_pixels=1_000_000), strip)
    with pytest.raises(TooLargeError, match=r"are padded to .* pixels together"):  # each is as wide as the widest
        feed(steps(height=48, max_pixels=1_000_000), plain(3000, 10), *[dot] * 100)


def test_two_ways_to_resize_are_refused() -> None:
    for fields in (
        {"letterbox": (1, 1), "height": 2},
        {"at_least": 3, "at_most": 2},
        {"letterbox": (1, 1), "crop": (1, 1)},
    ):
        with pytest.raises(ValueError, match=r"has both '.*' and '.*'; keep one"):
            steps(**fields)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_webp_is_decoded(mode: str, lossless: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 17, 3), np.uint8)
    target = io.BytesIO()
    Pillow.fromarray(pixels).convert(mode).save(target, "WEBP", lossless=lossless)
    manifest = fakes.stepped(steps(), of=((TensorSpec("x", "FP32", ("n", "h", "w", 3)),), fakes.ROW[1]))
    found = processing.preprocess_inputs(manifest, {"image": np.array([target.getvalue()], object)})["x"][0]
    assert found.shape == pixels.shape
    if lossless:
        np.testing.assert_array_equal(found, pixels)


def webp(kind: bytes, data: bytes) -> bytes:
    """The head of a WebP that says what it likes."""
    chunk = kind + len(data).to_bytes(4, "little") + data
    return b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk


def animated() -> bytes:
    target = io.BytesIO()
    plain(4, 4).save(target, "WEBP", save_all=True, append_images=[plain(4, 4, (200, 1, 1))])
    return target.getvalue()


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        (animated(), "Image 0 is an animated WebP; send one of its frames"),
        (
            webp(b"VP8X", b"\0\0\0\0" + b"\xff\xff\xff" * 2),
            r"Image 0 has 281,474,976,710,656 pixels .* send a smaller one",
        ),
        (webp(b"VP8L", b"\x2f\xff\xff\xff\xff"), r"Image 0 has 268,435,456 pixels \(16384 x 16384\)"),
        (webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f"), r"Image 0 has 268,402,689 pixels"),
        (webp(b"VP8L", b"\x2f\0\0\0\0"), "Image 0 cannot be read"),
        (webp(b"ALPH", b""), "Image 0 cannot be read: its WebP has no head"),
        (b"GIF89a", "neither PNG nor JPEG: its 6 bytes start with b'GIF89a', which is GIF; convert it to JPEG"),
        (b"\0\0\0\x18ftypheic", "which is HEIC, as iPhones write it; convert it to JPEG, PNG or WebP"),
        (b"%PDF-1.7", "which is PDF; convert it"),
    ],
)
def test_what_is_not_decoded_is_named(file: bytes, hint: str) -> None:
    manifest = fakes.stepped(steps(), of=((TensorSpec("x", "FP32", ("n", "h", "w", 3)),), fakes.ROW[1]))
    with pytest.raises(InvalidInputError, match=hint):
        processing.preprocess_inputs(manifest, {"image": np.array([file], object)})
