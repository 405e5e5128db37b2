"""Objects copied into files: in parts over several connections, hashed on the way, compressed where that is faster.

A link of 78 MB/s, which is a Lambda sandbox's, takes longer for the bytes than one core for unpacking fewer of them; a
fast one does not (infra/decisions/0017). So the first part comes as it is, and its speed decides about the others.
"""

import hashlib
import logging
import mmap
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain, count, pairwise
from typing import BinaryIO

from pilotlight.contracts.manifest import CompressedFile
from pilotlight.errors import NotFoundError, StoreError
from pilotlight.storage.object_store import PART_BYTES, ObjectStore, RangeCopier

CONNECTIONS = 4
FAST_BYTES_PER_S = 200e6  # bytes/s of the first part; unpacking wins until 150e6, and a link may begin with a burst
LOG = logging.getLogger(__name__)
PartCopier = Callable[[int, int, int], object]  # into an open file, from a byte to before another


def download_object(
    store: ObjectStore, path: str, target: BinaryIO, limit: int, compressed: CompressedFile | None = None
) -> tuple[int, str]:
    """Copy an object into an open file; gives its size in bytes and its sha256.

    `limit` is the size that it should have; a longer one is not read to its end, and its hash is of what was read.
    Large objects come in parts, and are hashed while later parts arrive. `compressed`, its path a key of the store, may
    be read instead of parts of it; whatever is wrong there, the parts themselves are read.
    """
    if limit > PART_BYTES:
        return download_in_parts(store, path, target, limit, compressed)
    digest, size = hashlib.sha256(), 0
    for chunk in store.stream(path):
        digest.update(chunk)
        target.write(chunk)
        size += len(chunk)
        if size > limit:
            break
    target.flush()
    return size, digest.hexdigest()


def hash_chunks(chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """The size in bytes and the sha256 of what comes in chunks, none of which is kept."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def download_in_parts(
    store: ObjectStore, path: str, target: BinaryIO, limit: int, compressed: CompressedFile | None
) -> tuple[int, str]:
    """`download_object` by ranged reads; the order of the hash is that of the bytes, not of their arrival."""
    fd, digest = target.fileno(), hashlib.sha256()
    part_bytes = compressed.part if compressed else PART_BYTES
    with store.open_range_copier(path) as copy_plain:
        started = time.monotonic()
        size = copy_first_part(store, path, copy_plain, fd, part_bytes)
        if size != limit:  # objects are written whole, so this is another one
            return size, digest.hexdigest()
        slow = min(part_bytes, size) / (time.monotonic() - started) < FAST_BYTES_PER_S
        copy = build_decompressing_copier(store, compressed, copy_plain) if compressed and slow else copy_plain
        os.truncate(fd, size)
        starts = range(0, size, part_bytes)
        with ThreadPoolExecutor(CONNECTIONS) as threads, mmap.mmap(fd, size, prot=mmap.PROT_READ) as mapped:
            rest = threads.map(lambda start: copy(fd, start, min(start + part_bytes, size)), starts[1:])
            for start, _ in zip(starts, chain([size], rest), strict=True):
                with memoryview(mapped)[start : start + part_bytes] as copied:
                    digest.update(copied)
    return size, digest.hexdigest()


def copy_first_part(store: ObjectStore, path: str, copy_range: RangeCopier, fd: int, end: int) -> int:
    """The object's size, after its bytes to before `end` are copied."""
    try:
        return copy_range(fd, 0, end)
    except StoreError:
        if store.get_size(path) > 0:
            raise
        return 0  # S3 has no range of an empty object


def build_decompressing_copier(store: ObjectStore, compressed: CompressedFile, copy_plain: RangeCopier) -> PartCopier:
    """Copies parts from the packed form of the object; by `copy_plain` what that form does not give."""
    from pilotlight.storage.zstd_frames import (  # loads zstd, for which a fast link has no use
        PackingError,
        decompress_frame,
    )

    spans = dict(zip(count(0, compressed.part), pairwise(accumulate(compressed.frames, initial=0)), strict=False))

    def copy(fd: int, start: int, end: int) -> None:
        at = start
        try:
            for chunk in decompress_frame(store.stream_range(compressed.path, *spans[start]), end - start):
                at += os.pwrite(fd, chunk, at)
        except (PackingError, NotFoundError, StoreError, KeyError) as exc:
            LOG.warning("%s is read in its plain form: %s", compressed.path, exc)
            copy_plain(fd, start, end)

    return copy
