"""How far a long step is: a line that changes on a terminal, and else a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pilotlight.cli.console import ERRORS

QUIET_S = 15.0  # s between two lines where nobody watches


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[str], None]]:
    """Show on standard error that a step is under way, what it tells, and how long it took."""
    began = time.monotonic()
    if ERRORS.is_terminal:
        with ERRORS.status(what) as status:
            yield lambda text: status.update(f"{what}, {format_elapsed(began)}: {text}")
    else:
        print_line(f"{what} ...")
        yield build_printer(began)
    print_line(f"{what}: {format_elapsed(began)}.")


def build_printer(began: float) -> Callable[[str], None]:
    """Build a function that prints what is told, if it is new and the last line is some seconds old."""
    last = ("", began - QUIET_S)

    def print_news(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if text != last[0] and now - last[1] >= QUIET_S:
            print_line(f"  {format_elapsed(began)}  {text}")
            last = (text, now)

    return print_news


def print_line(text: str) -> None:
    """Print a line on standard error."""
    ERRORS.print(text, markup=False, soft_wrap=True)


def format_elapsed(began: float) -> str:
    """Format the seconds since a time of `time.monotonic`."""
    return f"{time.monotonic() - began:.0f} s"
