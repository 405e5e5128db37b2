"""The servers that the command knows by name: the stacks deployed from here, their URLs, and the keys to them.

`--url` takes a URL or the name of such a stack. Which server is asked without it: PILOTLIGHT_URL's, likewise either,
else the one on this machine. Only a command that no server on this machine can mean asks the current stack, and says
so (infra/decisions/0078).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer

from pilotlight.client.auth import VARIABLES, Credentials
from pilotlight.deployment.remembered_stacks import RememberedStack, RememberedStacks
from pilotlight.deployment.stack import is_stack_name
from pilotlight.errors import InvalidInputError, PilotlightError, UnavailableError

LOCAL_URL = "http://127.0.0.1:8080"
URL_VARIABLE = "PILOTLIGHT_URL"


def open_remembered_stacks() -> RememberedStacks:
    """Open the file of remembered stacks in the user's configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return RememberedStacks(Path(base) / "pilotlight" if base else Path(typer.get_app_dir("pilotlight")))


def resolve_url(text: str | None) -> str | None:
    """Return the URL of a remembered stack for its name, and any other text as it is.

    Raises `InvalidInputError` for what has the form of a name, and is none that is remembered.
    """
    if not text or not is_stack_name(text) or text == "localhost":
        return text
    stacks = open_remembered_stacks()
    found = stacks.find(text)
    if found is None:
        known = ", ".join(one.name for one in stacks.read().stacks) or "none"
        raise InvalidInputError(
            f"{text!r} is not a URL such as {LOCAL_URL}, nor a stack that was deployed from here; known are: {known}."
        )
    return found.url


def find_default_url() -> str:
    """Find the server to ask where none is named: PILOTLIGHT_URL's, else the one on this machine."""
    return resolve_url(os.environ.get(URL_VARIABLE)) or LOCAL_URL


def find_remote_url() -> str | None:
    """Find the server of a command that can only mean a remote one: PILOTLIGHT_URL's, else the current stack's.

    That a stack is asked which was not named is said on standard error. None if no server is known.
    """
    if named := resolve_url(os.environ.get(URL_VARIABLE)):
        return named
    stack = open_remembered_stacks().find()
    if stack is None:
        return None
    typer.echo(f"Asking the stack {stack.name}, {stack.url}; --url asks another.", err=True)
    return stack.url


def find_credentials(url: str, environment: Mapping[str, str] | None = None) -> Credentials:
    """Find what opens a server: the environment's credentials if it has some, else the key of a remembered stack.

    A stack's key is sent to its own URL alone.
    """
    environment = os.environ if environment is None else environment
    if not any(environment.get(name, "").strip() for name in VARIABLES):
        stack = open_remembered_stacks().find_by_url(url)
        if stack is not None and stack.key:
            return Credentials.from_key(stack.key)
    return Credentials.from_environment(environment, url)


@contextmanager
def explain_default(url: str) -> Iterator[None]:
    """Tell the name of the current stack where the server on this machine, which is the default, does not answer."""
    try:
        yield
    except UnavailableError as exc:
        stack = find_current_stack() if url == LOCAL_URL else None
        if stack is None:
            raise
        raise UnavailableError(f"{exc} To ask the stack {stack.name}: --url {stack.name}") from exc


def find_current_stack() -> RememberedStack | None:
    """Find the stack that was deployed last; None also if the file cannot be read, which is no news in a hint."""
    try:
        return open_remembered_stacks().find()
    except PilotlightError:
        return None
