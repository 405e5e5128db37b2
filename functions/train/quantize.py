"""From an fp32 graph to one in 8-bit integers, by onnxruntime's static quantization (QDQ, signed by signed).

It sees the graph and the calibration images, never a validation or test image.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from functions.train.data import Array
from functions.train.export import INPUT, strip
from functions.train.recipe import QuantizationOptions


class CalibrationImages(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Raw images in batches, in the form that the calibrator asks for."""

    def __init__(self, images: Array, batch: int = 64) -> None:
        starts = range(0, len(images), batch)
        self._batches: Iterator[Array] = iter([images[start : start + batch] for start in starts])

    def get_next(self) -> dict[str, Array] | None:
        """The next batch, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def static(graph: Path, images: Array, path: Path) -> None:
    """Weights in 7 of 8 bits per output channel, activations in 8 over the range seen on the images.

    7 bits (`reduce_range`), because a CPU without VNNI adds pairs of 8-by-8-bit products in 16 bits, which saturate:
    the same graph then answers differently on another host, and Lambda does not say which CPU a function gets.
    Digits on AVX2, fused integer kernels against the same graph unfused in fp32: at 8 bits up to 3.1 apart on a logit
    and 2 of 450 classes, at 7 bits 0.03 and none.
    Dense layers give their result in fp32, so that the largest logit is not cut off at the calibrated range.
    """
    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(graph, prepared)
    quantize_static(
        prepared,
        path,
        CalibrationImages(images),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
    )
    prepared.unlink()


SCHEMES: Mapping[str, Callable[[Path, Array, Path], None]] = {"static": static}


def quantize(graph: Path, images: Array, options: QuantizationOptions, path: Path) -> None:
    """Write the int8 variant of a graph, calibrated on raw images (N, C, H, W) of the training set."""
    with quiet():
        SCHEMES[options.scheme](graph, np.ascontiguousarray(images), path)
    onnx.save(strip(onnx.load(path)), path)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the quantizer's advice, which goes to the root logger, out of a log that people read."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
