"""Fetch models before the first request, while the interpreter still imports the modules that open them.

    alias -> manifest -> graph and weights

in a thread, since obstore, `write` and the hash release the interpreter's lock. Nothing here raises: the
`PrefetchedStore` keeps each error for the reader of the same file. This module is imported before numpy and
onnxruntime, and must import neither.
"""

import logging
import sys
from collections.abc import Sequence
from threading import Thread

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.registry.registry import alias_path, version_path
from pilotlight.runtime.model_files import fetch_model_files
from pilotlight.runtime.prefetched_store import PrefetchedStore
from pilotlight.storage.object_store import ObjectStore

# Between two turns of the interpreter's lock during imports, short so that the fetch proceeds.
SWITCH_INTERVAL_S = 0.0005


LOG = logging.getLogger("pilotlight.runtime")


def parse_references(text: str) -> list[ModelReference]:
    """Parse the references in a setting; log a wrong one and skip it, so that the others are served."""
    found = []
    for name in text.replace(",", " ").split():
        try:
            found.append(ModelReference.parse(name))
        except InvalidInputError as exc:
            LOG.error("PILOTLIGHT_PRELOAD: %s", exc)  # noqa: TRY400 - the message is enough
    return found


def start_prefetch(
    store: ObjectStore, references: Sequence[ModelReference], *, max_age_seconds: float, budget_bytes: int
) -> PrefetchedStore:
    """Start to fetch the models; return the store through which they are to be read.

    Prefetched documents are valid for `max_age_seconds`; models are fetched as long as `budget_bytes` suffices.
    """
    prefetched = PrefetchedStore(store, max_age_seconds)
    resolved_events = [prefetched.block_until_resolved(reference.name) for reference in references]

    def fetch_all() -> None:
        left, before = budget_bytes, sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            for reference in references:
                left -= prefetch_model(prefetched, reference, left)
        finally:
            sys.setswitchinterval(before)
            for event in resolved_events:
                event.set()

    if references:
        Thread(target=fetch_all, name="preload", daemon=True).start()
    return prefetched


def prefetch_model(store: PrefetchedStore, reference: ModelReference, budget_bytes: int) -> int:
    """Prefetch one model; return its bytes, or 0 if that failed or it is larger than `budget_bytes`."""
    try:
        manifest = prefetch_manifest(store, reference)
    except PilotlightError:  # a request for the model gets the same error
        store.block_until_resolved(reference.name).set()
        return 0
    fits = manifest.served_bytes <= budget_bytes
    future = store.expect_files(manifest.name, manifest.version) if fits else None
    store.block_until_resolved(reference.name).set()
    if future is None:
        return 0
    try:
        future.set_result(fetch_model_files(store, manifest))
    except Exception as exc:  # noqa: BLE001 - any error is kept for the request
        future.set_exception(exc)
    return manifest.served_bytes


def prefetch_manifest(store: PrefetchedStore, reference: ModelReference) -> Manifest:
    """Prefetch the manifest that a reference resolves to now."""
    version = reference.version
    if version is None:
        path = alias_path(reference.name, reference.alias)
        version = decode_document(store.prefetch_document(path).data, AliasDocument, path).version
    path = version_path(reference.name, version, "manifest.json")
    return decode_document(store.prefetch_document(path).data, Manifest, path)
