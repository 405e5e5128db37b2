"""What a conversion says as it goes, on standard error: a spinner on a terminal, plain lines otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

CONSOLE = Console(stderr=True)


def show_line(line: str) -> None:
    """Show a line, above a spinner if there is one."""
    CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def show_work(what: str) -> Iterator[None]:
    """Show that something is under way, as long as it is."""
    if not CONSOLE.is_terminal:
        show_line(f"{what} ...")
        yield
        return
    with CONSOLE.status(what):
        yield
