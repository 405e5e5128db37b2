"""Copying of objects into files: in parts over several connections, hashed on the way, compressed where it is faster.

On a link of 78 MB/s, as in a Lambda sandbox, one core decompresses faster than the link delivers the plain bytes; on a
fast link it does not (infra/decisions/0017). So the first part is copied plain, and its speed decides for the others.
"""

import hashlib
import logging
import mmap
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate, chain, count, pairwise
from typing import BinaryIO

from pilotlight.contracts.manifest import CompressedFile
from pilotlight.errors import NotFoundError, StoreError
from pilotlight.storage.object_store import PART_BYTES, ObjectStore

CONNECTIONS = 4
FAST_BYTES_PER_S = 200e6  # bytes/s of the first part; unpacking wins until 150e6, and a link may begin with a burst
LOG = logging.getLogger(__name__)
PartCopier = Callable[[int, int, int], object]  # into an open file, from a byte to before another
ByteCounter = Callable[[int], object]  # is called with the number of bytes that have arrived since the last call


def count_nothing(count: int) -> None:
    """Take a number of bytes that nobody counts."""


def download_object(
    store: ObjectStore,
    path: str,
    target: BinaryIO,
    limit: int,
    compressed: CompressedFile | None = None,
    count_bytes: ByteCounter = count_nothing,
) -> tuple[int, str]:
    """Copy an object into an open file; return its size in bytes and its sha256.

    `limit` is the expected size; a longer object is not read to its end, and its hash is of what was read. Large
    objects are read in parts and hashed while later parts arrive. `compressed` may be read in place of parts, with its
    path as a key of the store; where it is missing or damaged, the plain parts are read.
    """
    if limit > PART_BYTES:
        return download_in_parts(store, path, target, limit, compressed, count_bytes)
    digest, size = hashlib.sha256(), 0
    for chunk in store.stream(path):
        digest.update(chunk)
        target.write(chunk)
        size += len(chunk)
        count_bytes(len(chunk))
        if size > limit:
            break
    target.flush()
    return size, digest.hexdigest()


def hash_chunks(chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Return the size in bytes and the sha256 of all chunks; none of them is kept."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def download_in_parts(
    store: ObjectStore,
    path: str,
    target: BinaryIO,
    limit: int,
    compressed: CompressedFile | None,
    count_bytes: ByteCounter = count_nothing,
) -> tuple[int, str]:
    """Download an object by ranged reads; the hash takes the bytes in their order, not in that of their arrival."""
    fd, digest = target.fileno(), hashlib.sha256()
    part_bytes = compressed.part if compressed else PART_BYTES
    copy_plain = partial(store.copy_range, path)
    started = time.monotonic()
    size = copy_first_part(store, path, fd, part_bytes)
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
                count_bytes(len(copied))
    return size, digest.hexdigest()


def copy_first_part(store: ObjectStore, path: str, fd: int, end: int) -> int:
    """Copy the bytes to before `end`; return the size of the whole object."""
    try:
        return store.copy_range(path, fd, 0, end)
    except StoreError:
        if store.get_size(path) > 0:
            raise
        return 0  # S3 has no range of an empty object


def build_decompressing_copier(store: ObjectStore, compressed: CompressedFile, copy_plain: PartCopier) -> PartCopier:
    """Build a copier that reads the compressed form of the object, and `copy_plain` where that form is unusable."""
    from pilotlight.storage.zstd_frames import (  # loads zstd, for which a fast link has no use
        CompressedFrameError,
        decompress_frame,
    )

    spans = dict(zip(count(0, compressed.part), pairwise(accumulate(compressed.frames, initial=0)), strict=False))

    def copy(fd: int, start: int, end: int) -> None:
        at = start
        try:
            for chunk in decompress_frame(store.stream_range(compressed.path, *spans[start]), end - start):
                at += os.pwrite(fd, chunk, at)
        except (CompressedFrameError, NotFoundError, StoreError, KeyError) as exc:
            LOG.warning("%s is read in its plain form: %s", compressed.path, exc)
            copy_plain(fd, start, end)

    return copy
