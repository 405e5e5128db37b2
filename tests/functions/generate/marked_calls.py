"""A way to call tools that a test's script can write: `!name`, and then the arguments."""

from collections.abc import Sequence

from pilotlight.api.conversation import ContentDelta, ToolCallDelta


class MarkReader:
    """Reads `!name` as the beginning of a call, and what follows as its arguments."""

    def __init__(self, choice: int) -> None:
        self.choice = choice
        self.calls = 0

    def read(self, text: str) -> Sequence[ContentDelta | ToolCallDelta]:
        if text.startswith("!"):
            self.calls += 1
            return [ToolCallDelta(self.choice, self.calls - 1, id=f"call_{self.calls}", name=text[1:])]
        if self.calls:
            return [ToolCallDelta(self.choice, self.calls - 1, text)]
        return [ContentDelta(self.choice, text)]

    def finish(self) -> Sequence[ContentDelta | ToolCallDelta]:
        return []
