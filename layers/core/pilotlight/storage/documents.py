"""One typed document in an object store: read, create-only write, compare-and-swap with retry.

What is stored is JSON, as `contracts.codec` writes it; what is stored there in another form is an `InvalidInputError`.
"""

from collections.abc import Callable
from typing import Generic

from pilotlight.contracts.codec import DocumentT, decode_document, encode_document
from pilotlight.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

ATTEMPTS = 5  # of a compare-and-swap that other writers may win


class Document(Generic[DocumentT]):
    """The document of one type at one path. It holds no state: each read is one request to the store."""

    def __init__(self, store: ObjectStore, path: str, document_type: type[DocumentT], **identity: object) -> None:
        """Open a document, of which `identity` are the fields by which it says what it is about.

        A document is read only where it belongs: with other values in these fields it is refused, wherever it came
        from. An empty field is that of a former release, which did not say.
        """
        self.store = store
        self.path = path
        self._type = document_type
        self._identity = identity

    def read(self) -> DocumentT:
        """Read the document; raise `NotFoundError` where there is none."""
        return self.read_with_e_tag()[0]

    def read_or_none(self) -> DocumentT | None:
        """Read the document; return None where there is none."""
        found = self.read_with_e_tag_or_none()
        return None if found is None else found[0]

    def read_with_e_tag(self) -> tuple[DocumentT, str]:
        """Read the document with the e_tag that `replace` compares; raise `NotFoundError` where there is none."""
        stored = self.store.get(self.path)
        return self.decode(stored.data), stored.e_tag

    def read_with_e_tag_or_none(self) -> tuple[DocumentT, str] | None:
        """Read the document and its e_tag; return None where there is none."""
        try:
            return self.read_with_e_tag()
        except NotFoundError:
            return None

    def write(self, value: DocumentT) -> None:
        """Write the document, over whatever is there."""
        self.store.put(self.path, encode_document(value))

    def create(self, value: DocumentT) -> None:
        """Write the document where there is none; raise `AlreadyExistsError` otherwise."""
        self.store.create(self.path, encode_document(value))

    def create_or_read(self, value: DocumentT) -> DocumentT:
        """Write the document where there is none and return `value` itself; return the existing one otherwise."""
        try:
            self.create(value)
        except AlreadyExistsError:
            return self.read()
        return value

    def replace(self, value: DocumentT, e_tag: str) -> None:
        """Write the document if its e_tag is still `e_tag`; raise `ChangedError` otherwise."""
        self.store.replace(self.path, encode_document(value), e_tag)

    def update(
        self,
        change: Callable[[DocumentT], DocumentT],
        attempts: int = ATTEMPTS,
        *,
        initial: DocumentT | None = None,
    ) -> DocumentT:
        """Swap the document for what `change` makes of it, and again of the newer one where another writer was faster.

        Nothing is written where `change` returns its argument. Where there is no document, `change` gets `initial` and
        its result is created; without `initial` that is a `NotFoundError`. The last attempt raises the `ConflictError`
        of its write. `change` may get its own result: a client library repeats a write whose answer was lost, and then
        finds the document changed.
        """
        while True:
            value, e_tag = self._read_or_initial(initial)
            updated = change(value)
            if updated is value:
                return value
            attempts -= 1
            try:
                self._write_if_unchanged(updated, e_tag)
            except ConflictError:
                if attempts <= 0:
                    raise
            else:
                return updated

    def decode(self, data: bytes) -> DocumentT:
        """Decode stored bytes; an error names the path and the wrong field."""
        value = decode_document(data, self._type, self.path)
        for field, expected in self._identity.items():
            if (found := getattr(value, field)) not in (expected, ""):
                raise InvalidInputError(
                    f"{self.path} is not of this place: its {field} is {found!r}, where {expected!r} belongs. It was "
                    "copied from elsewhere, or forged."
                )
        return value

    def _read_or_initial(self, initial: DocumentT | None) -> tuple[DocumentT, str | None]:
        if initial is None:
            return self.read_with_e_tag()
        return self.read_with_e_tag_or_none() or (initial, None)

    def _write_if_unchanged(self, value: DocumentT, e_tag: str | None) -> None:
        if e_tag is None:
            self.create(value)
        else:
            self.replace(value, e_tag)
