"""Photographs and drawings of every kind become the pixels that Pillow itself would make of them."""

import base64
import io
import struct
import zlib
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from pilotlight import processing
from pilotlight.contracts.manifest import Datatype, TensorSpec
from pilotlight.contracts.processing import ImagePreprocessing
from pilotlight.errors import InvalidInputError, TooLargeError
from pilotlight.registry.registry import build_manifest
from pilotlight.runtime.datatypes import Array
from tests import fakes

RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (37, 53, 3), np.uint8)


def file(picture: Pillow.Image | Array, kind: str = "PNG", **options: object) -> bytes:
    target = io.BytesIO()
    (picture if isinstance(picture, Pillow.Image) else Pillow.fromarray(picture)).save(target, kind, **options)
    return target.getvalue()


def pixels(*files: bytes | str, datatype: Datatype = "FP32", channels: int | str = 3, **steps: object) -> Array:
    """What the steps make of the files, with pixels left at 0 to 255 unless the steps say otherwise."""
    settings = ImagePreprocessing(**{"input": "x", "scale": 1.0, **steps})  # type: ignore[arg-type]  # steps of Image by name
    last = settings.layout == "NHWC"
    shape = ("batch", "height", "width", channels) if last else ("batch", channels, "height", "width")
    manifest = fakes.stepped(settings, of=((TensorSpec("x", datatype, shape),), fakes.ROW[1]))
    elements = np.empty(len(files), object)
    elements[:] = files
    return processing.preprocess_inputs(manifest, {"image": elements})["x"]


def one(given: bytes | str, **steps: object) -> Array:
    """The only image, channels last."""
    only: Array = pixels(given, layout="NHWC", channels="channels", **steps)[0]  # type: ignore[arg-type]  # as above
    return only


def test_bytes_and_base64_are_the_same_image() -> None:
    raw = file(NOISE)
    wrapped = base64.encodebytes(raw).decode()
    for sent in (raw, base64.b64encode(raw).decode(), f"data:image/png;base64,{wrapped}"):
        np.testing.assert_array_equal(one(sent), NOISE)


def test_base64_of_urls_and_every_data_url_are_the_same_image() -> None:
    raw = file(NOISE)
    plain, safe = base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()
    assert "+" in plain  # or else the alphabets would not differ
    for sent in (
        safe,
        safe.rstrip("="),
        plain.rstrip("="),
        f"DATA:IMAGE/PNG;BASE64,{plain}",
        f"data:image/png;charset=utf-8;base64,{quote(plain, safe='')}",
        f"data:image/png,{quote(raw)}",
    ):
        np.testing.assert_array_equal(one(sent), NOISE)


def test_a_jpeg_is_what_pillow_decodes() -> None:
    raw = file(NOISE, "JPEG", quality=80)
    np.testing.assert_array_equal(one(raw), np.asarray(Pillow.open(io.BytesIO(raw))))


def test_channels_come_first_or_last_or_turned() -> None:
    raw = file(NOISE)
    first = pixels(raw)[0]
    np.testing.assert_array_equal(first, NOISE.transpose(2, 0, 1))
    np.testing.assert_array_equal(pixels(raw, colour="BGR")[0], first[::-1])


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_exact_sizes_are_pillows(name: str) -> None:
    wanted = Pillow.fromarray(NOISE).resize((19, 61), getattr(Pillow.Resampling, name.upper()))
    np.testing.assert_array_equal(one(file(NOISE), resize=(61, 19), filter=name), np.asarray(wanted))


@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60))
def test_shortest_side_and_centre_are_torchvisions(width: int, height: int, short: int, high: int, wide: int) -> None:
    picture = Pillow.fromarray(RANDOM.integers(0, 256, (height, width), np.uint8))
    found = one(file(picture), colour="L", shortest=short, crop=(high, wide))
    np.testing.assert_array_equal(found[..., 0], np.asarray(torchvision(picture, short, (high, wide))))


def torchvision(picture: Pillow.Image, short: int, crop: tuple[int, int]) -> Pillow.Image:
    """`Resize(short)` and `CenterCrop(crop)` as torchvision 0.28 computes them on Pillow images."""
    width, height = picture.size
    long = int(short * max(width, height) / min(width, height))
    new = (short, long) if width <= height else (long, short)
    resized = picture.resize(new, Pillow.Resampling.BILINEAR)
    (width, height), (high, wide) = resized.size, crop
    if wide > width or high > height:
        left, top = max((wide - width) // 2, 0), max((high - height) // 2, 0)
        right, bottom = max((wide - width + 1) // 2, 0), max((high - height + 1) // 2, 0)
        padded = Pillow.new(resized.mode, (width + left + right, height + top + bottom))
        padded.paste(resized, (left, top))
        resized, (width, height) = padded, padded.size
    top, left = round((height - high) / 2.0), round((width - wide) / 2.0)
    return resized.crop((left, top, left + wide, top + high))


def test_normalisation_by_channel() -> None:
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = one(file(NOISE), scale=1 / 255, mean=mean, deviation=deviation)
    np.testing.assert_allclose(found, (NOISE / 255 - mean) / deviation, atol=1e-6)


@pytest.mark.parametrize(("datatype", "dtype"), [("UINT8", np.uint8), ("FP16", np.float16), ("INT64", np.int64)])
def test_the_graphs_datatype(datatype: Datatype, dtype: type) -> None:
    found = pixels(file(NOISE), datatype=datatype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[0].transpose(1, 2, 0), NOISE)


def test_integers_are_rounded_and_kept_in_range() -> None:
    ramp = np.array([[0, 1, 2, 255]], np.uint8)
    found = pixels(file(ramp), datatype="INT8", colour="L", channels=1, scale=0.75)
    np.testing.assert_array_equal(found.ravel(), [0, 1, 2, 127])


def test_several_images_are_one_batch() -> None:
    other = file(RANDOM.integers(0, 256, (80, 20, 3), np.uint8), "JPEG")
    batch = pixels(file(NOISE), other, resize=(8, 8))
    assert batch.shape == (2, 3, 8, 8)
    np.testing.assert_array_equal(batch[1], pixels(other, resize=(8, 8))[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_upright(orientation: int) -> None:
    picture = Pillow.fromarray(NOISE)
    exif = picture.getexif()
    exif[0x0112] = orientation
    turned = NOISE.swapaxes(0, 1)
    upright = {1: NOISE, 2: np.fliplr(NOISE), 3: np.rot90(NOISE, 2), 4: np.flipud(NOISE), 5: turned,
               6: np.rot90(NOISE, 3), 7: np.rot90(turned, 2), 8: np.rot90(NOISE)}  # fmt: skip
    np.testing.assert_array_equal(one(file(picture, exif=exif)), upright[orientation])


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_exif_that_does_not_read_turns_nothing(kind: str) -> None:
    raw = file(NOISE, kind, exif=b"Exif\0\0garbage", **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(one(raw), NOISE)


def test_a_wrong_tag_beside_the_orientation_does_not_matter() -> None:
    """Cameras write them; Pillow reads such EXIF and fails to write it again."""
    tags = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHI4s", 0x0132, 4, 1, b"2026")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    np.testing.assert_array_equal(one(file(NOISE, exif=exif)), np.rot90(NOISE, 3))


def test_grey_palette_and_one_bit_images_become_colours() -> None:
    palette = Pillow.fromarray(NOISE).quantize(16)
    np.testing.assert_array_equal(one(file(palette)), np.asarray(palette.convert("RGB")))
    grey = Pillow.fromarray(NOISE).convert("L")
    np.testing.assert_array_equal(one(file(grey)), np.asarray(grey.convert("RGB")))
    bits = Pillow.fromarray(NOISE).convert("1")
    np.testing.assert_array_equal(one(file(bits), colour="L")[..., 0], np.asarray(bits) * 255)
    assert one(file(NOISE), colour="L").shape == (37, 53, 1)


def test_cmyk_becomes_colours() -> None:
    raw = file(Pillow.fromarray(NOISE).convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(one(raw), np.asarray(Pillow.open(io.BytesIO(raw)).convert("RGB")))


def test_sixteen_bits_keep_their_upper_eight() -> None:
    deep = RANDOM.integers(0, 65536, (9, 7), np.uint16)
    np.testing.assert_array_equal(one(file(deep), colour="L")[..., 0], deep >> 8)


def transparent(mode: str) -> bytes:
    """A drawing of which nothing is seen; what it hides is 200 of 255."""
    if mode == "P":
        picture = Pillow.new(mode, (4, 4), 0)
        picture.putpalette([200, 200, 200])
        return file(picture, transparency=0)
    return file(Pillow.new(mode, (4, 4), (200, 200, 200, 0) if mode == "RGBA" else (200, 0)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_grey_or_dropped(mode: str) -> None:
    raw = transparent(mode)
    found = [one(raw, **steps)[0, 0].tolist() for steps in ({}, {"background": 0}, {"background": None})]
    assert found == [[255, 255, 255], [0, 0, 0], [200, 200, 200]]


def animation() -> bytes:
    frames = [Pillow.fromarray(NOISE), Pillow.fromarray(255 - NOISE)]
    return file(frames[0], save_all=True, append_images=frames[1:])


def bomb(width: int, height: int) -> bytes:
    """A PNG of many pixels in few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (b"GIF89a and more", r"Image 0 is neither PNG nor JPEG: its 15 bytes start with b'GIF89a a'"),
        (b"", "neither PNG nor JPEG: its 0 bytes"),
        ("not base64!", "Image 0 is not base64, which JSON needs for bytes"),
        ("é", "Image 0 is not base64"),
        ("abcde", "Image 0 is not base64"),
        ("https://example.com/a.png", "is the address 'https://example.com/a.png', which is not fetched"),
        ("data:image/png;base64", "is a data URL without a comma"),
        (b"\0\0\0\x18ftyphevc", "which is HEIC, as iPhones write it; convert it to JPEG, PNG or WebP"),
        (b"\0\0\0\x1cftypavis", "which is AVIF; convert it"),
        (b"II+\0\x08\0\0\0", "which is BigTIFF; convert it"),
        (file(NOISE)[:200], "Image 0 is damaged: .*truncated"),
        (file(NOISE, "JPEG")[:-300], "Image 0 is damaged: .*truncated"),
        (b"\x89PNG\r\n\x1a\n", "Image 0 cannot be read"),
        (b"\xff\xd8\xff\xe0", "Image 0 cannot be read"),
        (animation(), "Image 0 is animated with 2 frames; send one"),
        (bomb(100_000, 100_000), r"10,000,000,000 pixels together \(100000 x 100000\), more than 25,000,000"),
        (bomb(12_000, 12_000), "144,000,000 pixels"),  # where Pillow would warn
    ],
)
def test_bad_images_get_one_sentence(given: bytes | str, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        one(given)


def test_many_large_images_are_refused_before_any_is_decoded() -> None:
    with pytest.raises(
        InvalidInputError, match=r"5,883 pixels together \(53 x 37, 53 x 37, 53 x 37\), more than 4,000"
    ):
        pixels(*[file(NOISE)] * 3, max_pixels=4000)


def test_too_many_images_are_refused_before_any_is_opened() -> None:
    with pytest.raises(InvalidInputError, match="has 12,001 images; send 12,000 at most"):
        pixels(*[b"no image"] * 12_001)


def test_a_strip_that_would_grow_is_refused() -> None:
    strip = file(np.zeros((1, 60_000), np.uint8))
    with pytest.raises(InvalidInputError, match=r"is 60000 x 1 and would be resized to 256 x 15,360,000, more than"):
        one(strip, shortest=256)


def test_sizes_that_differ_are_refused_where_nothing_resizes() -> None:
    with pytest.raises(InvalidInputError, match="Image 1 is 20 x 80 and image 0 is 53 x 37; the model resizes none"):
        pixels(file(NOISE), file(np.zeros((80, 20), np.uint8)))


def test_the_wrong_image_is_named() -> None:
    with pytest.raises(InvalidInputError, match="Image 1 is neither"):
        pixels(file(NOISE), b"?")


@given(st.data())
def test_no_broken_file_is_more_than_a_sentence(data: st.DataObject) -> None:
    raw = bytearray(file(NOISE[:9, :9], data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(8, len(raw)))])
    try:
        found = one(cut)
    except InvalidInputError:
        return
    assert found.shape[2] == 3


def test_constants_must_fit_the_colours() -> None:
    with pytest.raises(ValueError, match="has 2 values in 'mean', but RGB has 3"):
        ImagePreprocessing(input="x", mean=(0.5, 0.5))
    with pytest.raises(ValueError, match="both 'shortest' and 'resize'"):
        ImagePreprocessing(input="x", shortest=2, resize=(1, 1))


def test_the_graph_must_have_the_input() -> None:
    with pytest.raises(InvalidInputError, match=r"prepares the input 'pixel', but the graph has \['x'\]"):
        fakes.stepped(ImagePreprocessing(input="pixel"))
    draft = fakes.draft()
    assert build_manifest(draft, fakes.stepped(None).files).task == "tensor"


def with_size(raw: bytes, width: int, height: int) -> bytes:
    """A PNG whose header says that it has another size."""
    head = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + raw[24:29]
    return raw[:12] + head + zlib.crc32(head).to_bytes(4) + raw[33:]


@pytest.mark.parametrize("size", [(50_000, 50_000), (2**31 - 1, 1), (1, 2**31 - 1)])
def test_the_header_is_believed_before_pixels_are_made(size: tuple[int, int]) -> None:
    with pytest.raises(TooLargeError, match=r"have [\d,]+ pixels together .* about 0 of these 1 at once"):
        one(with_size(file(NOISE), *size))


def test_small_images_that_become_large_ones_are_refused_before_any_is_decoded() -> None:
    dot = file(NOISE[:1, :1])
    with pytest.raises(TooLargeError, match=r"are resized to 50,176,000 pixels together .* about 498 of these 1000 at"):
        pixels(*[dot] * 1000, resize=(224, 224))
    assert pixels(*[dot] * 3, resize=(224, 224)).shape == (3, 3, 224, 224)


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    """Each scan is a pass over all pixels, and takes 10 bytes to ask for."""
    progressive = file(NOISE, "JPEG", progressive=True)
    assert 5 < progressive.count(b"\xff\xda") < 20
    assert one(progressive).shape == NOISE.shape
    start = progressive.index(b"\xff\xda")
    with pytest.raises(InvalidInputError, match="Image 0 has 310 scans, more than 200; save it as baseline JPEG"):
        one(progressive[:start] + b"\xff\xda\x00\x02" * 300 + progressive[start:])


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "ICO"])
def test_no_other_decoder_is_reached(kind: str) -> None:
    with pytest.raises(InvalidInputError, match="is neither PNG nor JPEG"):
        one(file(NOISE, kind))
