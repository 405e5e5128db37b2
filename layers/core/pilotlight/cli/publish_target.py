"""Where `pilotlight publish` puts a version: into a store, or onto a server, over HTTP and with a bar for each file."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from pilotlight.cli.console import ERRORS, open_client, open_registry
from pilotlight.client import file_uploads
from pilotlight.contracts.manifest import Manifest, ManifestDraft
from pilotlight.contracts.version_files import FileContent

Publisher = Callable[[ManifestDraft, Mapping[str, FileContent]], Manifest]


def open_publisher(name: str, store: str, url: str | None, *, json: bool) -> Publisher:
    """Open what publishes versions of a model; a server that refuses the caller is noticed before the work begins.

    A store on disk is made once there is a version for it, so that a model that is refused leaves nothing.
    """
    if url is None:
        return lambda draft, files: open_registry(store).publish_version(draft, files)
    with open_client(url) as client:
        client.registry.check_access(name)

    def publish(draft: ManifestDraft, files: Mapping[str, FileContent]) -> Manifest:
        with open_client(url) as client, show_progress(files, json=json) as on_progress:
            return client.registry.publish(draft, files, on_progress)

    return publish


@contextmanager
def show_progress(files: Mapping[str, FileContent], *, json: bool) -> Iterator[file_uploads.Progress]:
    """Show on standard error how the uploads go: bars on a terminal, else a line for each file that was sent."""
    if json:
        yield lambda path, sent: None
        return
    sizes = {path: measure_content(content) for path, content in files.items()}
    if not ERRORS.is_terminal:
        yield UploadLines(sizes)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=ERRORS, transient=True) as bars:
        tasks = {path: bars.add_task(path, total=size) for path, size in sizes.items()}
        yield lambda path, sent: bars.advance(tasks[path], sent)


class UploadLines:
    """Prints a line once all bytes of a file were sent."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._sent = dict.fromkeys(sizes, 0)  # each changed by the thread that uploads its file

    def __call__(self, path: str, sent: int) -> None:
        """Note that so many bytes of a file were sent."""
        self._sent[path] += sent
        if sent > 0 and self._sent[path] == self._sizes[path]:
            ERRORS.print(f"Sent {path} ({self._sizes[path]:,} bytes).", markup=False, soft_wrap=True)


def measure_content(content: FileContent) -> int:
    """Measure the bytes of a file."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size
