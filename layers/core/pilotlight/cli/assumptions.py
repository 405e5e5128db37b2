"""Collect what publishing assumes of a model, to tell it on standard error, in --json and in the model card."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from pilotlight.contracts.version_files import FileContent

CARD = "model-card.md"


class Assumption(Struct, frozen=True):
    """A setting that nobody has given, what it is taken as, and why: a clause without its full stop."""

    setting: str
    value: str
    why: str

    def __str__(self) -> str:
        """Format the assumption as a short line."""
        return f"{self.setting}: {self.value} ({self.why})"


class Assumptions:
    """The assumptions of one publish, in order; the first of a setting counts."""

    def __init__(self) -> None:
        self._assumed: dict[str, Assumption] = {}

    def add(self, setting: str, value: object, why: str) -> None:
        """Note a setting."""
        self._assumed.setdefault(setting, Assumption(setting, str(value), why))

    @property
    def all(self) -> tuple[Assumption, ...]:
        """All that was assumed."""
        return tuple(self._assumed.values())

    def add_to_card(self, files: Mapping[str, FileContent]) -> dict[str, FileContent]:
        """Return the files with a section in the model card."""
        if CARD not in files or not self._assumed:
            return dict(files)
        content = files[CARD]
        text = content.read_text("utf-8") if isinstance(content, Path) else bytes(content).decode()
        return {**files, CARD: f"{text.rstrip()}\n\n{format_card_section(self.all)}".encode()}


def format_card_section(assumed: Sequence[Assumption]) -> str:
    """Format the assumptions as a section of a card."""
    lines = "\n".join(f"- {assumption}" for assumption in assumed)
    return f"## What was assumed\n\n{lines}\n"
