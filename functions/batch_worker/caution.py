"""How a range of a file goes on after its worker has ended without a word: killed for memory or time, or crashed.

    nothing known     the range is answered in parts of 4 MB; the claim notes that a worker has begun
    a death           what is suspected, 4 MB at most, goes on in 16 blocks, each noted before it is begun
    the next ones     the block that was noted goes on in 16 blocks, and so on down to one line
    one line alone    it gets an error for an answer, and the rest is answered

So a line that ends processes is found among 10,000 after five deaths, and nothing is written beside the results while
nothing dies. Lambda tries an event three times: `is_to_be_handed_over` says when the rest must get an event of its own.
This module knows ranges, not stores.
"""

from collections.abc import Iterable, Iterator

from msgspec import structs

from functions.batch_worker.record_reader import InputItem
from pilotlight.contracts.batch import Block, ByteRange, Caution

PART_BYTES = 4_000_000  # of the input, or of answers: what a killed invocation may lose
BLOCKS = 16  # into which what is suspected is divided
MAX_SET_ASIDE = 20  # lines of a file; of a range in which processes still end after that, no line is tried
MAX_DEATHS = 6 * MAX_SET_ASIDE  # of workers of a file, after which it is left to the dead letters
SET_ASIDE = (
    "This line is set aside: each process that answered it ended, and no error said why. Memory, time or a crash in "
    "native code may be the reason; the function's log has its last words."
)
NOT_TRIED = (
    f"This line is not tried: {MAX_SET_ASIDE} lines of the file were set aside since the process ended when they were "
    "answered."
)


def begin_range(span: ByteRange) -> ByteRange:
    """Note that a worker begins with a range, and that the one before ended without a word if it was at work."""
    cautious = note_death(span, span.block) if span.block is not None else span
    known = cautious.caution
    end = span.end if known is None else min(span.end, span.position + known.block_bytes)
    return structs.replace(cautious, block=Block(end))


def note_death(span: ByteRange, block: Block) -> ByteRange:
    """Return the range after its worker has ended without a word while it answered the block."""
    known = span.caution
    if known is None:
        end = min(span.end, span.position + PART_BYTES)
        return structs.replace(span, caution=build_caution(span.position, end, end))
    if block.is_single:
        return structs.replace(span, caution=structs.replace(known, sets_aside=True))
    return structs.replace(span, caution=build_caution(span.position, min(block.end, known.suspect_end), known.end))


def build_caution(position: int, suspect_end: int, end: int) -> Caution:
    """Build the caution for a range that is answered up to `position`."""
    return Caution(max(1, (suspect_end - position) // BLOCKS), suspect_end, end)


def ease_caution(span: ByteRange) -> ByteRange:
    """Return the range, answered up to its position, with larger blocks once those are passed that were suspected."""
    known = span.caution
    if known is None:
        return span
    if span.position < known.suspect_end:
        return structs.replace(span, caution=structs.replace(known, sets_aside=False))
    if span.position >= known.end:
        return structs.replace(span, caution=None, block=Block(span.end) if span.block else None)
    return structs.replace(span, caution=build_caution(span.position, known.end, known.end))


def is_to_be_handed_over(before: ByteRange, after: ByteRange) -> bool:
    """Return whether a claim found a death that was not the first, so that the event may have no attempt left."""
    return before.caution is not None and before.block is not None and after.caution is not None


def iterate_blocks(items: Iterable[InputItem], position: int, caution: Caution) -> Iterator[list[InputItem]]:
    """Group the items from `position` on into blocks of a size that the caution allows, of one item at least."""
    block: list[InputItem] = []
    for item in items:
        if block and item.end - position > caution.block_bytes:
            yield block
            position, block = block[-1].end, []
        block.append(item)
    if block:
        yield block
