"""What stands between a request's tensors and the graph, by the manifest's word: one noun per module.

    prepare: image, text, tabular, or the graph's own tensors      before the graph
    finish:  classification, regression, embedding, or nothing     behind it

They know manifests and arrays, not protocols. Pillow (30 ms) and tokenizers (20 ms) are imported when the first version
needs them.
"""

from collections.abc import Mapping, Sequence

from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.processing import Classification, Embedding, Image, Table
from pilotlight.processing import classification, embedding, regression, tabular, tensor
from pilotlight.processing.signature import Signature, choose
from pilotlight.runtime.assets import Assets
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.session import Array

DATATYPES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


def prepare(manifest: Manifest, tensors: Mapping[str, Array], assets: Assets | None = None) -> Mapping[str, Array]:
    """The feeds for the graph, from what the caller sent; `InvalidInputError` says what is wrong with it.

    Datatypes are the protocol's to check, since they decide how bytes become arrays.
    """
    steps = manifest.prepare
    if steps is None:
        return tensor.checked(manifest, tensors)
    way = called(manifest, tensors)
    if way.raw:
        return tensor.checked(manifest, tensors)
    tensor.check_names(manifest, way.names, tensors)
    if isinstance(steps, Table):
        feeds = tabular.feeds(steps, manifest, tensors)
    elif isinstance(steps, Image):
        from pilotlight.processing import image

        feeds = image.feeds(steps, manifest, tensors[steps.name])
    else:
        from pilotlight.processing import text

        feeds = text.feeds(steps, manifest, tensors[steps.name], assets or Assets())
    return tensor.checked(manifest, feeds)


def called(manifest: Manifest, tensors: Mapping[str, Array]) -> Signature:
    """The way in which these tensors call the model, with the outputs that come back by default."""
    return choose(manifest, {name: DATATYPES[array.dtype] for name, array in tensors.items()})


def needs(manifest: Manifest, wanted: Sequence[str]) -> list[str]:
    """The graph's outputs that the wanted ones are made of."""
    finish = manifest.finish
    if finish is None:
        return list(dict.fromkeys(wanted))
    return list(dict.fromkeys(finish.output if name in finish.names else name for name in wanted))


def finish(
    manifest: Manifest, results: Mapping[str, Array], feeds: Mapping[str, Array], wanted: Sequence[str]
) -> Mapping[str, Array]:
    """The wanted outputs by name: the graph's own, and those that the finish makes of them."""
    steps = manifest.finish
    if steps is None or not set(wanted) & set(steps.names):
        return results
    answer = results[steps.output]
    if isinstance(steps, Classification):
        return {**results, **classification.outputs(steps, manifest.labels, answer)}
    if isinstance(steps, Embedding):
        return {**results, steps.name: embedding.vectors(steps, answer, feeds.get(embedding.MASK))}
    return {**results, steps.name: regression.numbers(steps, answer)}
