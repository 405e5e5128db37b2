"""Models are fetched before anybody asks for them, while the interpreter still imports what opens them.

    alias -> manifest -> graph and weights

in a thread, since obstore, `write` and the hash let go of the interpreter's lock. Nothing here raises: what goes
wrong is kept by the `ReadAhead` for who asks. This module is imported before numpy and
onnxruntime, and must import neither.
"""

import logging
import sys
from collections.abc import Sequence
from threading import Thread

from pilotlight.contracts.manifest import AliasDocument, Manifest, Reference, decode
from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.registry.registry import alias_path, version_path
from pilotlight.runtime.model_files import fetch
from pilotlight.runtime.prefetched_store import ReadAhead
from pilotlight.storage.object_store import ObjectStore

SWITCH_S = 0.0005  # turns of the interpreter's lock while modules are imported, short so that the fetch goes on


LOG = logging.getLogger("pilotlight.runtime")


def references(text: str) -> list[Reference]:
    """The models that a setting names; a wrong name is said in the log and not fetched, for others may be asked for."""
    found = []
    for name in text.replace(",", " ").split():
        try:
            found.append(Reference.parse(name))
        except InvalidInputError as exc:
            LOG.error("PILOTLIGHT_PRELOAD: %s", exc)  # noqa: TRY400 - the sentence tells all
    return found


def preload(store: ObjectStore, references: Sequence[Reference], *, seconds: float, budget: int) -> ReadAhead:
    """Start to fetch the models; gives the store through which they are to be read.

    Documents that were read ahead count for `seconds`; models are fetched as long as `budget` bytes hold them.
    """
    ahead = ReadAhead(store, seconds)
    resolved = [ahead.resolving(reference.name) for reference in references]

    def fetch_all() -> None:
        left, before = budget, sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            for reference in references:
                left -= fetch_one(ahead, reference, left)
        finally:
            sys.setswitchinterval(before)
            for event in resolved:
                event.set()

    if references:
        Thread(target=fetch_all, name="preload", daemon=True).start()
    return ahead


def fetch_one(ahead: ReadAhead, reference: Reference, budget: int) -> int:
    """Read one model ahead; gives its bytes, or 0 where that failed or it is larger than `budget`."""
    try:
        manifest = resolve(ahead, reference)
    except PilotlightError:  # whoever asks for the model meets the same error
        ahead.resolving(reference.name).set()
        return 0
    fits = manifest.bytes <= budget
    expected = ahead.expect(manifest.name, manifest.version) if fits else None
    ahead.resolving(reference.name).set()
    if expected is None:
        return 0
    try:
        expected.set_result(fetch(ahead, manifest))
    except Exception as exc:  # noqa: BLE001 - kept for who asks, whatever it is
        expected.set_exception(exc)
    return manifest.bytes


def resolve(ahead: ReadAhead, reference: Reference) -> Manifest:
    """The manifest that a reference means now."""
    version = reference.version
    if version is None:
        path = alias_path(reference.name, reference.alias)
        version = decode(ahead.read(path).data, AliasDocument, path).version
    path = version_path(reference.name, version, "manifest.json")
    return decode(ahead.read(path).data, Manifest, path)
