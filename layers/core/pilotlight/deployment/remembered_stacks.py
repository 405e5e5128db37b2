"""The stacks that `pilotlight deploy` has deployed from here: a file in the user's configuration folder.

It has the key that a first deploy creates, and so it is for its owner alone, like ~/.aws/credentials. What opens a
stack is sent to that stack's own URL and nowhere else (infra/decisions/0078).
"""

import os
import secrets
import stat
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pilotlight.errors import BrokenDocumentError, InvalidInputError, UnavailableError

FILE_NAME = "stacks.json"
OWNER_ONLY = 0o600
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class RememberedStack(Struct, frozen=True, omit_defaults=True):
    """A deployed stack, and how it is reached."""

    name: str
    url: str  # with its stage
    bucket: str
    region: str
    profile: str = ""  # empty for the environment's credentials
    key: str = ""  # of the first deploy; empty where callers need another kind of credentials


class StacksDocument(Struct, frozen=True):
    """The file: the stacks by name, and the one that was deployed or named last."""

    current: str = ""
    stacks: tuple[RememberedStack, ...] = ()


class RememberedStacks:
    """The remembered stacks of a user; each change replaces the whole file at once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME

    def read(self) -> StacksDocument:
        """Read the file; an empty document if there is none.

        Raises `BrokenDocumentError` if it cannot be read as what it is, and `InvalidInputError` if others may read it.
        """
        try:
            with self.path.open("rb") as file:
                mode, data = os.fstat(file.fileno()).st_mode, file.read()
        except FileNotFoundError:
            return StacksDocument()
        except OSError as exc:
            raise UnavailableError(f"{self.path} cannot be read: {exc.strerror}.") from exc
        try:
            document = msgspec.json.decode(data, type=StacksDocument)
        except msgspec.MsgspecError as exc:
            raise BrokenDocumentError(f"{self.path} is not what `pilotlight deploy` wrote: {exc}; remove it.") from exc
        if os.name == "posix" and mode & OTHERS and any(one.key for one in document.stacks):
            raise InvalidInputError(f"{self.path} has keys, and others may read it; run: chmod 600 {self.path}")
        return document

    def find(self, name: str = "") -> RememberedStack | None:
        """Find a stack by its name, or the current one; None if it is not remembered."""
        document = self.read()
        wanted = name or document.current
        return next((one for one in document.stacks if one.name == wanted), None)

    def find_by_url(self, url: str) -> RememberedStack | None:
        """Find the stack of a URL, by all of it; None if it is not remembered."""
        return next((one for one in self.read().stacks if one.url.rstrip("/") == url.rstrip("/")), None)

    def remember(self, stack: RememberedStack) -> None:
        """Remember a stack as the current one. One that was there loses what is not given again, but for its key."""
        before = self.find(stack.name)
        if before is not None and before.bucket == stack.bucket and not stack.key:
            stack = replace(stack, key=before.key)
        others = tuple(one for one in self.read().stacks if one.name != stack.name)
        self._write(StacksDocument(stack.name, (*others, stack)))

    def forget(self, name: str) -> None:
        """Forget a stack; do nothing if it is not remembered."""
        document = self.read()
        left = tuple(one for one in document.stacks if one.name != name)
        if left != document.stacks:
            current = document.current if document.current != name else left[-1].name if left else ""
            self._write(StacksDocument(current, left))

    def _write(self, document: StacksDocument) -> None:
        """Replace the file by one that only its owner may read, from its first byte on."""
        fresh = self.path.with_name(f"{FILE_NAME}.{secrets.token_hex(4)}")
        data = msgspec.json.format(msgspec.json.encode(document)) + b"\n"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
            with open(handle, "wb") as file:  # noqa: PTH123 - of a handle, whose file was never readable by others
                file.write(data)
            fresh.replace(self.path)
        except OSError as exc:
            fresh.unlink(missing_ok=True)
            raise UnavailableError(f"{self.path} cannot be written: {exc.strerror}.") from exc
