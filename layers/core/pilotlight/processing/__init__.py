"""The steps between a request's tensors and the graph that the manifest configures: one noun per module.

    preprocess:  image, audio, text, tabular, or the graph's own tensors                            before the graph
    postprocess: classification, regression, embedding, detection, ctc, segmentation, or nothing    after it

They depend on manifests and arrays, not on protocols. Pillow (30 ms), tokenizers (20 ms), soxr (2 ms), libsndfile (40
ms) and the finishes of images are imported when the first version needs them.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import (
    AudioPreprocessing,
    ClassificationPostprocessing,
    EmbeddingPostprocessing,
    ImagePreprocessing,
    RegressionPostprocessing,
    TablePreprocessing,
)
from pilotlight.processing import classification, embedding, input_validation, regression, tabular
from pilotlight.processing.signature import CallSignature, choose_signature
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from pilotlight.runtime.model_cache import Assets
from pilotlight.runtime.recurrence import Recurrence, select_first_run

if TYPE_CHECKING:
    from pilotlight.processing.image_geometry import ImageGeometry

DATATYPES_BY_DTYPE = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


class PreparedInputs(NamedTuple):
    """The graph's feeds, and where each image of the caller lies in them; empty unless a step has read images."""

    feeds: Mapping[str, Array]
    geometries: "Sequence[ImageGeometry]" = ()


def preprocess_inputs(
    manifest: Manifest, tensors: Mapping[str, Array], assets: Assets | None = None
) -> Mapping[str, Array]:
    """Build the graph's feeds alone, as `prepare_inputs` does."""
    return prepare_inputs(manifest, tensors, assets).feeds


def prepare_inputs(manifest: Manifest, tensors: Mapping[str, Array], assets: Assets | None = None) -> PreparedInputs:
    """Build the graph's feeds from the caller's tensors; `InvalidInputError` explains what is wrong with them.

    The protocol checks the datatypes, since they decide how bytes become arrays.
    """
    steps = manifest.preprocess
    if steps is None:
        return PreparedInputs(input_validation.check_feeds(manifest, tensors))
    signature = get_call_signature(manifest, tensors)
    if signature.is_raw:
        return PreparedInputs(input_validation.check_feeds(manifest, tensors))
    input_validation.check_input_names(manifest, signature.input_names, tensors)
    geometries: Sequence[ImageGeometry] = ()
    if isinstance(steps, TablePreprocessing):
        feeds = tabular.build_table_feeds(steps, manifest, tensors)
    elif isinstance(steps, ImagePreprocessing):
        from pilotlight.processing import image

        feeds, geometries = image.build_image_feeds(steps, manifest, tensors[steps.name])
    elif isinstance(steps, AudioPreprocessing):
        from pilotlight.processing import audio

        feeds = audio.build_audio_feeds(steps, manifest, tensors[steps.name])
        input_validation.check_feeds(manifest, select_first_run(feeds, audio.find_recurrence(steps, manifest)))
        return PreparedInputs(feeds)
    else:
        from pilotlight.processing import text

        feeds = text.build_text_feeds(steps, manifest, tensors[steps.name], assets or Assets())
    return PreparedInputs(input_validation.check_feeds(manifest, feeds), geometries)


def find_recurrence(manifest: Manifest, tensors: Mapping[str, Array]) -> Recurrence | None:
    """Find how the rows that are prepared from these tensors are run one after another; None if all are run at once."""
    steps = manifest.preprocess
    if not isinstance(steps, AudioPreprocessing) or get_call_signature(manifest, tensors).is_raw:
        return None
    from pilotlight.processing import audio

    return audio.find_recurrence(steps, manifest)


def get_call_signature(manifest: Manifest, tensors: Mapping[str, Array]) -> CallSignature:
    """Choose the signature that these tensors match, with the outputs that it returns by default."""
    return choose_signature(manifest, {name: DATATYPES_BY_DTYPE[array.dtype] for name, array in tensors.items()})


def select_graph_outputs(manifest: Manifest, requested_outputs: Sequence[str]) -> list[str]:
    """List the graph's outputs from which the requested ones are computed."""
    steps = manifest.postprocess
    if steps is None:
        return list(dict.fromkeys(requested_outputs))
    needed = ((steps.sources if name in steps.output_names else (name,)) for name in requested_outputs)
    return list(dict.fromkeys(chain.from_iterable(needed)))


def postprocess_outputs(
    manifest: Manifest,
    results: Mapping[str, Array],
    feeds: Mapping[str, Array],
    requested_outputs: Sequence[str],
    geometries: "Sequence[ImageGeometry]" = (),
    parameters: Mapping[str, Any] | None = None,
) -> Mapping[str, Array]:
    """Return the outputs by name: the graph's own, and those that `postprocess` computes from them.

    A finish that has places in images answers in the caller's pixels by the `geometries`; `parameters` of a request
    may adjust it.
    """
    steps = manifest.postprocess
    if steps is None or not set(requested_outputs) & set(steps.output_names):
        return results
    graph_output = results[steps.output]
    if isinstance(steps, ClassificationPostprocessing):
        return {**results, **classification.build_label_outputs(steps, manifest.labels, graph_output)}
    if isinstance(steps, EmbeddingPostprocessing):
        return {**results, steps.name: embedding.build_embeddings(steps, graph_output, feeds.get(embedding.MASK_INPUT))}
    if isinstance(steps, RegressionPostprocessing):
        return {**results, steps.name: regression.restore_units(steps, graph_output)}
    from pilotlight.processing import finish

    return {**results, **finish.build_outputs(manifest, steps, results, feeds, geometries, parameters or {})}
