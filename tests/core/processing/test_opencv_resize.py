"""Images resized as by OpenCV: what cv2 5.0 gave for the same pixels, and what holds for any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.processing.opencv_resize import resize_area, resize_linear

SMALL = (np.arange(20) * 37 % 256).astype(np.uint8).reshape(5, 4, 1)
LARGER = (np.arange(48) * 53 % 256).astype(np.uint8).reshape(6, 8, 1)
Rows = list[list[int]]

# By cv2.resize(..., interpolation=cv2.INTER_LINEAR).
LINEAR: dict[tuple[int, int], Rows] = {
    (3, 3): [[55, 105, 83], [46, 96, 145], [122, 129, 135]],
    (7, 6): [
        [0, 18, 43, 68, 92, 111], [85, 103, 128, 152, 104, 49], [117, 135, 160, 185, 118, 45],
        [40, 59, 83, 108, 133, 151], [146, 164, 158, 61, 55, 74], [142, 160, 160, 88, 88, 106],
        [80, 98, 123, 148, 172, 191],
    ],
    (2, 4): [[111, 148, 185, 30], [161, 198, 43, 80]],
    (10, 8): [
        [0, 9, 28, 46, 65, 83, 102, 111], [37, 46, 65, 83, 102, 104, 91, 84], [111, 120, 139, 157, 176, 146, 69, 30],
        [121, 130, 149, 167, 186, 156, 79, 40], [67, 76, 95, 113, 132, 134, 121, 114],
        [77, 86, 105, 107, 94, 96, 115, 124], [151, 160, 179, 149, 72, 42, 61, 70],
        [161, 170, 189, 159, 82, 52, 71, 80],
        [107, 116, 135, 137, 124, 126, 145, 154], [80, 89, 108, 126, 145, 163, 182, 191],
    ],
}  # fmt: skip
# By cv2.resize(..., interpolation=cv2.INTER_AREA).
AREA: dict[tuple[int, int], Rows] = {
    (2, 3): [[108, 130, 119], [132, 122, 111]],
    (3, 4): [[111, 89, 131, 109], [127, 169, 83, 125], [143, 121, 99, 141]],
    (2, 2): [[120, 118], [133, 110]],
    (9, 10): [
        [0, 40, 80, 119, 159, 212, 60, 36, 75, 115], [84, 124, 100, 75, 115, 168, 112, 120, 127, 71],
        [168, 208, 120, 31, 71, 124, 164, 204, 179, 27], [80, 120, 160, 199, 239, 36, 76, 116, 155, 195],
        [164, 108, 116, 155, 195, 120, 64, 72, 111, 151], [248, 96, 72, 111, 151, 204, 52, 28, 67, 107],
        [160, 200, 112, 23, 63, 116, 156, 196, 171, 19], [116, 156, 132, 107, 147, 72, 112, 152, 159, 103],
        [72, 112, 152, 191, 231, 28, 68, 108, 147, 187],
    ],
}  # fmt: skip
SIDES = st.integers(1, 24)


@pytest.mark.parametrize(("size", "expected"), LINEAR.items())
def test_linear_is_opencvs_to_the_last_bit(size: tuple[int, int], expected: Rows) -> None:
    assert resize_linear(SMALL, *size)[..., 0].tolist() == expected


def test_half_the_size_is_the_mean_of_four_as_in_opencv() -> None:
    assert resize_linear(LARGER, 3, 4)[..., 0].tolist() == [
        [111, 89, 131, 109],
        [127, 169, 83, 125],
        [143, 121, 99, 141],
    ]


@pytest.mark.parametrize(("size", "expected"), AREA.items())
def test_area_is_opencvs(size: tuple[int, int], expected: Rows) -> None:
    assert resize_area(LARGER, *size)[..., 0].tolist() == expected


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 255))
def test_one_colour_stays_that_colour(rows: int, columns: int, height: int, width: int, grey: int) -> None:
    for resize in (resize_linear, resize_area):
        found = resize(np.full((rows, columns, 3), grey, np.uint8), height, width)
        assert found.shape == (height, width, 3)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - grey).max() <= 1  # fixed point loses a bit at edges, as OpenCV's


@given(SIDES, SIDES, SIDES, SIDES, st.randoms(use_true_random=False))
def test_no_pixel_leaves_the_range_of_its_image(
    rows: int, columns: int, height: int, width: int, random: object
) -> None:
    source = np.random.default_rng(random.randrange(2**32)).integers(40, 200, (rows, columns, 1), np.uint8)  # type: ignore[attr-defined]  # random.Random
    for resize in (resize_linear, resize_area):
        found = resize(source, height, width)
        assert int(source.min()) - 1 <= found.min()
        assert found.max() <= source.max()


def test_floats_are_linear_between_the_centres_of_pixels() -> None:
    ramp = np.arange(4, dtype=np.float32).reshape(1, 4, 1)
    assert resize_linear(ramp, 1, 8)[0, :, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
