"""Images as a data set holds them: 8 bits a value, in memory or in their files, and float32 only where they are used.

They are read by index like an array, a mini-batch at a time; selecting some copies no pixel. Values are 0 to 255.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from functions.train.data import Array
from functions.train.data.statistics import Moments

VALUES_AT_ONCE = 2**19  # that are float32 at a time where a whole set is passed over: 2 MB
VALUES_ON_GPU = 2**24  # the same where a GPU computes on them


@dataclass(frozen=True, eq=False)
class PixelSums:
    """What the moments of any selection of images are computed from, exactly: of each image and channel, (M, C)."""

    sums: Array  # int64
    squares: Array  # int64
    minimum: Array  # uint8
    maximum: Array  # uint8

    @classmethod
    def measure(cls, images: Array) -> "PixelSums":
        """Measure images uint8 (M, C, H, W), without a wider copy of them."""
        flat = images.reshape(*images.shape[:2], -1)
        squares = np.einsum("mcp,mcp->mc", flat, flat, dtype=np.int64)
        return cls(flat.sum(axis=2, dtype=np.int64), squares, flat.min(axis=2), flat.max(axis=2))

    @classmethod
    def join(cls, parts: Sequence["PixelSums"]) -> "PixelSums":
        """Concatenate the sums of several images."""
        joined = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("sums", "squares", "minimum", "maximum")
        )
        return cls(*joined)

    def compute_moments(self, indices: Array, pixels_per_image: int) -> Moments:
        """Compute the moments of each channel over the images at `indices`; in whole numbers up to the division."""
        count = len(indices) * pixels_per_image
        sums, squares = (part[indices].sum(axis=0).tolist() for part in (self.sums, self.squares))
        same = self.minimum[indices].min(axis=0) == self.maximum[indices].max(axis=0)
        variance = [(count * square - total * total) / count**2 for total, square in zip(sums, squares, strict=True)]
        mean = np.array([total / count for total in sums], np.float32)
        return Moments(mean, np.where(same, 1, np.sqrt(variance)).astype(np.float32))


@dataclass(frozen=True, eq=False)
class Pixels(ABC):
    """Images (N, channels, height, width), given as float32 wherever they are indexed."""

    indices: Array  # int64 (N,), into all images that were read
    sums: PixelSums  # of all images that were read
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    ndim: ClassVar[int] = 4

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """The channels, height and width."""

    @abstractmethod
    def read_pixels(self, positions: Array) -> Array:
        """Read the images at these positions among all that were read, uint8 (n, C, H, W)."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of all images together."""
        return (len(self.indices), *self.image_shape)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: Any) -> Array:  # noqa: ANN401 - as numpy takes it
        first, *others = key if isinstance(key, tuple) else (key,)
        positions = self.indices[first]
        images = self.read_pixels(np.atleast_1d(positions)).astype(np.float32)
        found: Array = images if np.ndim(positions) else images[0]
        return found[(slice(None),) * np.ndim(positions) + tuple(others)] if others else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:  # noqa: ANN401 - numpy's protocol
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def select(self, indices: Array) -> Self:
        """Select the images at `indices`, in that order, without copying them."""
        return replace(self, indices=self.indices[indices])

    def compute_moments(self) -> Moments:
        """Compute the moments of each channel."""
        return self.sums.compute_moments(self.indices, self.image_shape[1] * self.image_shape[2])


Inputs = Array | Pixels  # what the examples of a data set are


@dataclass(frozen=True, eq=False)
class MemoryPixels(Pixels):
    """Images whose pixels are in memory, once, however many selections of them there are."""

    pixels: Array  # uint8 (M, C, H, W)

    @classmethod
    def hold(cls, pixels: Array, indices: Array | None = None) -> "MemoryPixels":
        """Hold images uint8 (M, C, H, W), all of them unless `indices` selects some."""
        chosen = np.arange(len(pixels)) if indices is None else indices
        size = count_images_at_once(pixels.shape[1:])
        parts = [PixelSums.measure(pixels[start : start + size]) for start in range(0, len(pixels), size)]
        return cls(chosen, PixelSums.join(parts), pixels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The channels, height and width."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def read_pixels(self, positions: Array) -> Array:
        """Read images from memory."""
        return np.asarray(self.pixels[positions])


class ImageDecoder(Protocol):
    """Decodes the images of a data set from their files."""

    def decode_images(self, positions: Sequence[int]) -> Array:
        """Decode images, uint8 (n, C, H, W); `StoreError` when one is not what it was when it was first read."""


@dataclass(frozen=True, eq=False)
class FilePixels(Pixels):
    """Images that are decoded from their files whenever they are read, since they are larger than the memory."""

    decoder: ImageDecoder
    shape_of_each: tuple[int, int, int]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The channels, height and width."""
        return self.shape_of_each

    def read_pixels(self, positions: Array) -> Array:
        """Decode images from their files."""
        return self.decoder.decode_images(positions.tolist())


def count_images_at_once(image_shape: Sequence[int], values: int = VALUES_AT_ONCE) -> int:
    """Count how many images of this shape are float32 at a time where a whole set is passed over."""
    return max(1, values // max(1, int(np.prod(image_shape))))


def iterate_chunks(inputs: Inputs, values: int = VALUES_AT_ONCE) -> Iterator[Array]:
    """Iterate over all examples: arrays as they are, images as float32, some at a time, the next ones meanwhile."""
    if not isinstance(inputs, Pixels):
        yield inputs
        return
    size = count_images_at_once(inputs.image_shape, values)
    positions = np.arange(len(inputs))
    yield from (images for _, images in read_ahead(inputs, np.split(positions, range(size, len(inputs), size))))


def read_ahead(inputs: Pixels, parts: Iterator[Array] | Sequence[Array]) -> Iterator[tuple[Array, Array]]:
    """Yield each part of the indices with its images, float32; files are decoded while the last part is used."""
    if isinstance(inputs, MemoryPixels):
        yield from ((part, inputs[part]) for part in parts)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="pilotlight-images") as pool:
        waiting = None
        for part in parts:
            following = part, pool.submit(inputs.__getitem__, part)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()
