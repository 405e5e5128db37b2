"""Find stop strings in a text that comes in pieces, without letting out any part of one."""

from collections.abc import Sequence


class StopStringFinder:
    """Finds the first stop string to be complete; of several that end at one place, the longest.

    What may be the beginning of a stop string is held back until it is clear whether it is one. The result does not
    depend on how the text is cut into pieces.
    """

    def __init__(self, stop_strings: Sequence[str], *, include: bool = False) -> None:
        """Prepare to find any of `stop_strings`; with `include`, the one that is found is part of the text."""
        self._stop_strings = sorted({stop for stop in stop_strings if stop}, key=len, reverse=True)
        self._include = include
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Take the next piece of text, and return what may go out; `found` is set if a stop string is complete."""
        if not self._stop_strings:
            return text
        text = self._held + text
        place = self._find_first(text)
        if place is not None:
            self._held = ""
            return text[:place]
        released = len(text) - self._count_held(text)
        self._held = text[released:]
        return text[:released]

    def flush(self) -> str:
        """Return what was held back, at the end of the text or where stop strings do not count."""
        held, self._held = self._held, ""
        return held

    def _find_first(self, text: str) -> int | None:
        """Find where the text ends, behind or before the stop string whose end comes first; note which it is."""
        matches = [(start + len(stop), start, stop) for stop in self._stop_strings if (start := text.find(stop)) >= 0]
        if not matches:
            return None
        end, start, self.found = min(matches)
        return end if self._include else start

    def _count_held(self, text: str) -> int:
        """Count the characters at the end of the text that a stop string may begin with."""
        longest = min(len(text), len(self._stop_strings[0]) - 1)
        for count in range(longest, 0, -1):
            tail = text[-count:]
            if any(stop.startswith(tail) for stop in self._stop_strings):
                return count
        return 0
