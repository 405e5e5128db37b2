"""A disk that is full or read-only, and permission that is lost midway: a clear error, nothing half-visible."""

import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from pilotlight.contracts.alias import AliasDocument
from pilotlight.errors import PilotlightError, StoreError
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.load.faults.kills import find_half_versions, find_wrong_history
from tests.load.faults.row import Row, attempt, judge, skip

DISK_MB = 4
NOBODY = 65534  # the user and group without rights
PROMISED = "a clear error, nothing half-visible; healed, everything goes on"


def run(times: int) -> list[Row]:
    """Fill a disk, make it read-only, and take the permission away."""
    del times
    return [fill_disk(), make_read_only(), *lose_permission()]


@contextmanager
def mount_disk() -> Iterator[Path | None]:
    """A disk of `DISK_MB` MB; None where this process may not mount one."""
    with TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def fill_disk() -> Row:
    """Publish and move until nothing fits any more."""
    with mount_disk() as folder:
        if folder is None:
            return skip("full disk", PROMISED, "only root may mount a small disk")
        registry = Registry(open_store((folder / "store").as_uri()))
        fakes.publish(registry)
        with (folder / "ballast").open("wb", buffering=0) as ballast:
            said = fill(registry, ballast.write)
        errors = {said, attempt(lambda: move(registry), StoreError)}
        wrong = find_half_versions(registry, "double") + find_wrong_history(registry)
        (folder / "ballast").unlink()
        wrong += [] if all(errors) else ["no error"]
        wrong += go_on(registry)
    return judge("full disk", PROMISED, f"503: {said.rsplit('/', 1)[-1]}", wrong)


def fill(registry: Registry, write: Callable[[bytes], int]) -> str:
    """Fill the rest of the disk; gives what a publisher is told then."""
    for block in (1 << 20, 1 << 12, 1 << 8):
        while not attempt(lambda block=block: write(bytes(block)), OSError):  # type: ignore[misc]  # a loop's variable
            pass
    for _ in range(100):
        if said := attempt(lambda: fakes.publish(registry), PilotlightError):
            return said
    return ""


def move(registry: Registry) -> AliasDocument:
    """Move the champion, with a reason that takes a block of the disk."""
    return registry.move_alias("double", "champion", 1, actor="disk", reason="r" * 5000)


def go_on(registry: Registry) -> list[str]:
    """What does not go on after the fault."""
    said = attempt(lambda: (fakes.publish(registry), move(registry)), PilotlightError)
    return ([said] if said else []) + find_half_versions(registry, "double") + find_wrong_history(registry)


def make_read_only() -> Row:
    """Remount a disk read-only and back."""
    with mount_disk() as folder:
        if folder is None:
            return skip("read-only store", PROMISED, "only root may mount a disk")
        registry = Registry(open_store((folder / "store").as_uri()))
        fakes.publish(registry)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        errors = [attempt(lambda: fakes.publish(registry), StoreError), attempt(lambda: move(registry), StoreError)]
        wrong = find_half_versions(registry, "double") + find_wrong_history(registry)
        wrong += [] if all(errors) else ["no error"]
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        wrong += go_on(registry)
    return judge("read-only store", PROMISED, f"503: {errors[0].rsplit('/', 1)[-1]}; reads go on", wrong)


def lose_permission() -> Iterator[Row]:
    """Take the right to write a part of the store away, as somebody who is not root."""
    for lost in ("versions", "aliases", "history"):
        with TemporaryDirectory() as folder:
            Path(folder).chmod(0o777)  # for the child, who is somebody else
            result = run_as_nobody(folder, lost)
        seen = result or "a StoreError that says `Permission denied` and names the path"
        yield judge(f"permission for {lost}/ lost midway", PROMISED, seen, [result] if result else [])


def try_without(folder: Path, lost: str) -> str:
    """What breaks the promise; an empty text if nothing does."""
    registry = Registry(open_store((folder / "store").as_uri()))
    fakes.publish(registry)
    registry.move_alias("double", "champion", 1, actor="a", reason="so that there is a history")
    closed = folder / "store" / "models" / "double" / lost
    places = [closed, *(path for path in closed.rglob("*") if path.is_dir())]
    for place in places:
        place.chmod(0o555)
    said = attempt(lambda: (fakes.publish(registry), move(registry)), StoreError)
    wrong = find_half_versions(registry, "double") + find_wrong_history(registry)
    for place in places:
        place.chmod(0o755)
    wrong += [] if "Permission denied" in said else [f"it said {said!r}"]
    return "; ".join(wrong + go_on(registry))


def run_as_nobody(folder: str, lost: str) -> str:
    """Try it in a process without root's rights; gives what breaks the promise."""
    context = multiprocessing.get_context("forkserver")  # of this one, a fork would lack the threads of its stores
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=try_as_nobody, args=(folder, lost, there))
    process.start()
    there.close()
    said = here.recv() if here.poll(60) else "it hangs"
    process.kill()
    process.join()
    return str(said)


def try_as_nobody(folder: str, lost: str, result: Connection) -> None:
    """Give up root's rights, and try it."""
    if not os.geteuid():
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    result.send(try_without(Path(folder), lost))
