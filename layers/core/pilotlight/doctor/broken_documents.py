"""Find the documents of a store that cannot be read, say what each costs, and mend those that can be mended safely.

A broken document costs the thing that it describes and nothing else. A repair never removes a version: it puts back
what the store itself still knows, or moves the bytes to `broken/` where whoever needs the document writes it anew.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import uuid4

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.api_key import ApiKey
from pilotlight.contracts.batch import BatchCancellation, BatchManifest, BatchRequest, FileProgress
from pilotlight.contracts.codec import format_utc_now
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.promotion import PromotionRequest
from pilotlight.contracts.run import PublishedVersion, RunStatus
from pilotlight.contracts.upload import Upload
from pilotlight.drift.report import DriftReport
from pilotlight.errors import BrokenDocumentError, ConflictError, NotFoundError, UnavailableError
from pilotlight.gate.verdict import Verdict
from pilotlight.registry.approval import Approval, open_approval
from pilotlight.registry.registry import Registry, VersionClaim, history_path
from pilotlight.registry.signing import ManifestSignature
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore
from pilotlight.training_runs import run_store
from pilotlight.training_runs.jobs import TrainingJob

ACTOR = "pilotlight doctor"
BROKEN_FOLDER = "broken"  # where bytes are kept that were no document
READERS = 16  # documents that are read at once
FOLDERS = (
    "models",
    "approvals",
    "verdicts",
    "signatures",
    "runs",
    "batches",
    "outbox",
    "uploads",
    "drift",
    "idempotency",
    "keys",
)
Repair = Callable[[ObjectStore, "re.Match[str]"], str]  # mends a document, and says in a sentence what was done


class RepairRefusedError(UnavailableError):
    """A document cannot be mended safely; the text is why, and what to do instead."""


class IdempotencyEntry(Struct):
    """The part of an idempotency key's document that must be there."""

    id: str
    fingerprint: str


class BrokenDocument(Struct, frozen=True):
    """A document that cannot be read."""

    path: str
    error: str
    cost: str  # what does not work because of it
    repair: str  # what mends it, or what a person can do
    is_mendable: bool


@dataclass(frozen=True)
class DocumentKind:
    """The documents whose paths match a pattern: their type, what a broken one costs, and how it is mended."""

    pattern: str
    document_type: type[Struct] | None  # None for text that `is_broken` reads
    cost: str
    repair_text: str
    repair: Repair | None = None

    def find_error(self, store: ObjectStore, path: str) -> str:
        """Return why the document cannot be read; an empty text if it can."""
        if self.document_type is None:
            return find_run_error(store, path)
        error = Document(store, path, self.document_type).read_or_error()
        return str(error) if isinstance(error, BrokenDocumentError) else ""


def find_broken_documents(store: ObjectStore) -> list[BrokenDocument]:
    """Find every document of the store that cannot be read, sorted by path."""
    paths = [path for folder in FOLDERS for path in store.list_paths(folder) if find_kind(path) is not None]
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda path: describe_broken_document(store, path), paths)
        return sorted((one for one in found if one is not None), key=lambda one: one.path)


def describe_broken_document(store: ObjectStore, path: str) -> BrokenDocument | None:
    """Describe a document that cannot be read; None for one that can."""
    kind, _ = match_kind(path)
    error = kind.find_error(store, path)
    if not error:
        return None
    return BrokenDocument(path, error, kind.cost, kind.repair_text, kind.repair is not None)


def repair_document(store: ObjectStore, path: str) -> str:
    """Mend a document that cannot be read, and say what was done; raise `RepairRefusedError` if that is not safe."""
    kind, match = match_kind(path)
    if kind.repair is None:
        raise RepairRefusedError(f"{path} is left as it is: {kind.repair_text}.")
    return kind.repair(store, match)


def find_kind(path: str) -> DocumentKind | None:
    """Find the kind of the document at a path; None for a file of another kind."""
    return next((kind for kind in KINDS if re.fullmatch(kind.pattern, path)), None)


def match_kind(path: str) -> "tuple[DocumentKind, re.Match[str]]":
    """Match the kind of the document at a path."""
    kind = find_kind(path)
    match = re.fullmatch(kind.pattern, path) if kind is not None else None
    if kind is None or match is None:
        raise NotFoundError(f"{path} is not a path of a document.")
    return kind, match


def find_run_error(store: ObjectStore, path: str) -> str:
    """Return why a recipe or the metrics of a run cannot be read."""
    errors = list[str]()
    (run_store.load_recipe if path.endswith(".yaml") else run_store.load_epochs)(store, path, errors)
    return " ".join(errors)


def set_aside(store: ObjectStore, match: "re.Match[str]") -> str:
    """Move a document's bytes to `broken/`."""
    path = match[0]
    kept = copy_bytes(store, path, f"{BROKEN_FOLDER}/{path}.{uuid4().hex[:8]}")
    store.delete(path)
    return f"{path} was moved to {kept}."


def copy_bytes(store: ObjectStore, path: str, kept: str) -> str:
    """Copy an object's bytes, which may be many, and return where; raise `ConflictError` if it changed meanwhile."""
    _, e_tag = store.get_size_and_e_tag(path)
    store.put_chunks(kept, map(bytes, store.stream(path)))
    if store.get_size_and_e_tag(path)[1] != e_tag:
        raise ConflictError(f"{path} was written by somebody else meanwhile; look again.")
    return kept


def restore_alias(store: ObjectStore, match: "re.Match[str]") -> str:
    """Point an alias to the version that its newest readable former document names."""
    registry, (name, alias) = Registry(store), match.groups()
    rows = registry.load_alias_history(name, alias)
    existing = registry.list_versions(name)
    for document in reversed(rows):
        if isinstance(document, AliasDocument) and document.version in existing:
            reason = f"put back to number {document.number}: a newer document could not be read"
            mended = registry.replace_broken_alias(name, alias, document.version, actor=ACTOR, reason=reason)
            return f"{name}@{alias} points to version {mended.version} again, as number {document.number} did."
    raise RepairRefusedError(
        f"{match[0]} is left as it is: its history names no version that is there; "
        f"`pilotlight promote {name}:VERSION --alias {alias} --force` replaces it."
    )


def rename_history(store: ObjectStore, match: "re.Match[str]") -> str:
    """Keep the bytes of a former document in the history, where it is shown as unreadable."""
    name, alias, number = match.groups()
    kept = copy_bytes(store, match[0], history_path(name, alias, int(number), "broken"))
    store.delete(match[0])
    return f"{match[0]} was moved to {kept}."


def rewrite_claim(store: ObjectStore, match: "re.Match[str]") -> str:
    """Write a claim by nobody, so that the number stays taken."""
    Document(store, match[0], VersionClaim).write(VersionClaim("", ACTOR, format_utc_now()))
    return f"{match[0]} was written anew: its number stays taken."


def reject_version(store: ObjectStore, match: "re.Match[str]") -> str:
    """Write a rejection: who may not have been approved must not serve."""
    name, version = match[1], int(match[2])
    kept = copy_bytes(store, match[0], f"{BROKEN_FOLDER}/{match[0]}.{uuid4().hex[:8]}")
    reason = f"the decision could not be read, its bytes are in {kept}; decide again"
    open_approval(Registry(store), name, version).write(
        Approval(name, version, "rejected", ACTOR, format_utc_now(), reason, 1)
    )
    return f"{name}:{version} counts as rejected until a person decides again; the bytes are in {kept}."


def keep_readable_epochs(store: ObjectStore, match: "re.Match[str]") -> str:
    """Write the epochs before the first line that is none."""
    epochs = run_store.load_epochs(store, match[0], [])
    kept = copy_bytes(store, match[0], f"{BROKEN_FOLDER}/{match[0]}.{uuid4().hex[:8]}")
    store.put(match[0], b"".join(msgspec.json.encode(epoch) + b"\n" for epoch in epochs))
    return f"{match[0]} has its first {len(epochs)} epochs again; all bytes are in {kept}."


def set_job_aside(store: ObjectStore, match: "re.Match[str]") -> str:
    """Move a job's document away, unless the job may be running: a second one would be started beside it."""
    run = run_store.load_run(store, match[1])
    if run.state == "running":
        raise RepairRefusedError(f"{match[0]} is left as it is: the run is running. Repair it after its end.")
    return set_aside(store, match)


def rewrite_cancellation(store: ObjectStore, match: "re.Match[str]") -> str:
    """Write the request to stop anew: that it exists is what counts."""
    Document(store, match[0], BatchCancellation).write(BatchCancellation(0, ACTOR))
    return f"{match[0]} was written anew: the batch stays cancelled."


def restore_file(store: ObjectStore, match: "re.Match[str]") -> str:
    """Write a file's document from that of its upload; without one, move it away."""
    folder = match[0].rpartition("/")[0]
    announced = Document(store, f"{folder}/upload.json", Upload, id=match[1]).read_or_error()
    e_tag = find_content(store, folder, announced) if isinstance(announced, Upload) else None
    if isinstance(announced, Upload) and e_tag is not None:
        Document(store, match[0], Upload).write(replace(announced, e_tag=e_tag))
        return f"{match[0]} was written anew, as its upload was announced."
    return set_aside(store, match)


def find_content(store: ObjectStore, folder: str, announced: Upload) -> str | None:
    """Return the e_tag of an upload's bytes, which were sent at once; None if they are not all there."""
    try:
        size, e_tag = store.get_size_and_e_tag(f"{folder}/{announced.content}")
    except NotFoundError:
        return None
    return e_tag if size == announced.bytes else None


MODEL = r"models/([^/]+)"
VERSION = rf"{MODEL}/versions/([1-9][0-9]*)"
JUDGED = r"([^/]+)/([1-9][0-9]*)"  # a version, in the folders of those who judge
RUN = r"runs/([^/]+)"
TENANT = r"(?:tenant=[^/]+/)?"  # the folder of a tenant
ID = rf"{TENANT}([0-9a-f]{{32}})"
ASIDE = "its bytes are moved to broken/"
KINDS = (
    DocumentKind(
        rf"{MODEL}/aliases/([^/]+)\.json",
        AliasDocument,
        "A new environment cannot follow the alias, and warm ones keep the version that they have.",
        "the alias goes back to the version before its last move",
        restore_alias,
    ),
    DocumentKind(
        rf"{MODEL}/history/([^/]+)/([1-9][0-9]*)\.json",
        AliasDocument,
        "This move is unreadable in the alias's history.",
        "its bytes are kept beside it",
        rename_history,
    ),
    DocumentKind(
        rf"{VERSION}/manifest\.json",
        Manifest,
        "The version cannot be opened.",
        "publish the model again, or put back the object's former version where the bucket keeps those",
    ),
    DocumentKind(rf"{VERSION}/claim\.json", VersionClaim, "Nothing.", "it is written anew", rewrite_claim),
    DocumentKind(
        rf"verdicts/{JUDGED}\.json",
        Verdict,
        "The gate's verdict cannot be shown.",
        f"{ASIDE}; `pilotlight promote NAME:VERSION --check` measures again",
        set_aside,
    ),
    DocumentKind(
        rf"approvals/{JUDGED}\.json",
        Approval,
        "The version cannot be promoted.",
        "it counts as rejected until a person decides again",
        reject_version,
    ),
    DocumentKind(
        rf"signatures/{JUDGED}\.json",
        ManifestSignature,
        "The version is refused where versions are signed.",
        f"{ASIDE}; `pilotlight promote NAME:VERSION --sign-with KEY` signs again",
        set_aside,
    ),
    DocumentKind(
        rf"{MODEL}/promotions/([^/]+)\.json",
        PromotionRequest,
        "The result of this promotion cannot be asked for.",
        ASIDE,
        set_aside,
    ),
    DocumentKind(
        rf"{RUN}/recipe\.yaml",
        None,
        "The run cannot be resumed, and is listed without its settings.",
        "train again under another --run",
    ),
    DocumentKind(
        rf"{RUN}/metrics\.jsonl",
        None,
        "Epochs from the broken line on are not shown, and the run cannot be resumed.",
        "the epochs before the broken line are kept",
        keep_readable_epochs,
    ),
    DocumentKind(
        rf"{RUN}/status\.json",
        RunStatus,
        "The run's state is unknown.",
        f"{ASIDE}; the run writes it when it goes on",
        set_aside,
    ),
    DocumentKind(
        rf"{RUN}/published\.json",
        PublishedVersion,
        "The run does not know its version, and cannot be resumed.",
        f"{ASIDE}; a resumed run finds its version in the registry",
        set_aside,
    ),
    DocumentKind(
        rf"{RUN}/job\.json",
        TrainingJob,
        "The run's job can be neither cancelled nor started again over HTTP.",
        f"{ASIDE}, unless the run is running",
        set_job_aside,
    ),
    DocumentKind(
        rf"batches/{ID}/order\.json",
        BatchRequest,
        "The batch is not answered.",
        f"{ASIDE}; request it again",
        set_aside,
    ),
    DocumentKind(
        rf"batches/{ID}/cancel\.json",
        BatchCancellation,
        "The batch stays cancelled, but cannot be shown.",
        "it is written anew",
        rewrite_cancellation,
    ),
    DocumentKind(
        r"outbox/(?!messages/).+/progress\.json",
        FileProgress,
        "How far the file is cannot be shown.",
        f"{ASIDE}; its worker answers the file from its start",
        set_aside,
    ),
    DocumentKind(
        r"outbox/(?!messages/).+/manifest\.json",
        BatchManifest,
        "The file's result is there, but what it holds cannot be shown.",
        "put the file into the inbox again, or request the batch again",
    ),
    DocumentKind(
        rf"uploads/{ID}/file\.json",
        Upload,
        "The file cannot be read over HTTP.",
        f"it is written as its upload was announced; without that {ASIDE}",
        restore_file,
    ),
    DocumentKind(
        rf"uploads/{ID}/upload\.json", Upload, "The upload cannot be completed.", f"{ASIDE}; upload again", set_aside
    ),
    DocumentKind(
        r"drift/[^/]+/[1-9][0-9]*/[^/]+\.json",
        DriftReport,
        "This report of one night cannot be read.",
        f"{ASIDE}; the next report covers its hours too if it was the newest",
        set_aside,
    ),
    DocumentKind(
        rf"idempotency/{TENANT}[0-9a-f]{{64}}\.json",
        IdempotencyEntry,
        "Requests with this idempotency key fail.",
        f"{ASIDE}; the key may make a new object",
        set_aside,
    ),
    DocumentKind(
        r"keys/([^/]+)\.json",
        ApiKey,
        "The key opens nothing.",
        "`pilotlight keys revoke ID` removes it, and `pilotlight keys create` makes another one",
    ),
)


def repair_all(store: ObjectStore, broken: list[BrokenDocument]) -> Iterator[tuple[BrokenDocument, bool, str]]:
    """Mend each document; yield it, whether it is mended, and what was done or why not."""
    for one in broken:
        try:
            yield one, True, repair_document(store, one.path)
        except (UnavailableError, ConflictError, NotFoundError) as exc:
            yield one, False, str(exc)
