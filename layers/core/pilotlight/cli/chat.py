"""`pilotlight chat`: talk with a language model in the terminal."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import msgspec
import typer

from pilotlight.cli import packaged_model, serve
from pilotlight.cli.console import ERRORS, STORE, JsonOption, UrlOption, open_client, print_json
from pilotlight.cli.known_servers import LOCAL_URL, URL_VARIABLE, find_default_url
from pilotlight.client.chat_stream import ChatAnswer, Message, stream_chat
from pilotlight.client.client import Client
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError, PilotlightError, UnavailableError

EXIT, CLEAR = "/exit", "/clear"
PROMPT = "> "
QUESTION = "What is a pilot light?"  # of a demo without a terminal
TEMPERATURE = 0.2  # small models write nonsense at OpenAI's 1; SmolLM2's authors advise 0.2
MAX_TOKENS = 512  # of an answer, since a small model may never end one
LOADING_S = 300.0  # how long a model may take to be opened
Options = dict[str, float | int | None]


def chat(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A model: name, name:3 or name@alias. Without it, SmolLM2 is fetched, published as chat, and served.",
        ),
    ] = None,
    url: UrlOption = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="Serve this store for the chat, and ask no server.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="What the model is told before the chat.")] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, max=2, help="0 always takes the likeliest token.")
    ] = TEMPERATURE,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of each answer.")] = MAX_TOKENS,
    json: JsonOption = False,
) -> None:
    """Chat with a language model; what is piped in is one question. /exit ends, /clear begins anew."""
    if url is not None and (store is not None or name is None):
        raise InvalidInputError(
            f"--url {url} asks a server for a NAME, and a store is served without it; leave one out."
        )
    began = time.perf_counter()
    options: Options = {"temperature": temperature, "max_tokens": max_tokens}
    if name is None:
        name, store = packaged_model.MODEL_NAME, store or os.environ.get("PILOTLIGHT_STORE") or STORE
        packaged_model.publish_unless_there(store)
    ModelReference.parse(name)
    with open_server(url, store) as address, open_client(address) as client:
        packaged_model.print_step("Before the first question", began)
        TerminalChat(client, name, system, options, json=json).run()


@contextmanager
def open_server(url: str | None, store: str | None) -> Iterator[str]:
    """Find the server to ask, or serve a store: the one that is named, or the default one where no server is known."""
    if url is not None:
        yield url
        return
    if store is None:
        known = find_default_url()
        if URL_VARIABLE in os.environ or known != LOCAL_URL or is_answering(known):
            yield known
            return
        store = os.environ.get("PILOTLIGHT_STORE") or STORE
    began = time.perf_counter()
    gateway = serve.build_gateway(store, host="127.0.0.1", port=0, workers=1)
    with gateway.serve_in_background() as address:
        packaged_model.print_step(f"Serving {store} for this chat", began)
        yield address


def is_answering(url: str) -> bool:
    """Return whether a server answers there."""
    with Client(url) as client:
        return client.is_ready()


class TerminalChat:
    """A conversation with one model; an answer that is stopped stays in it as far as it has come."""

    def __init__(self, client: Client, model: str, system: str | None, options: Options, *, json: bool) -> None:
        self._client = client
        self._model = model
        self._system: list[Message] = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._system)
        self._options = options
        self._json = json

    def run(self) -> None:
        """Ask what is piped in, or what is typed until the end."""
        if sys.stdin is None or not sys.stdin.isatty():
            self._answer(read_piped_question())
            return
        ERRORS.print(f"Chat with {self._model}; {CLEAR} begins anew, {EXIT} ends.", style="dim", markup=False)
        for question in read_questions():
            if question == CLEAR:
                self._messages = list(self._system)
                continue
            try:
                self._answer(question)
            except PilotlightError as exc:  # of this question: the chat goes on without it
                self._messages.pop()
                ERRORS.print(str(exc), style="red", markup=False, soft_wrap=True)

    def _answer(self, question: str) -> None:
        """Ask one question, and print the answer while it comes."""
        self._messages.append({"role": "user", "content": question})
        answer = ChatAnswer()
        try:
            wait_while_loading(lambda: self._print_answer(answer))
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            ERRORS.print("\nStopped.", style="dim")
        self._messages.append({"role": "assistant", "content": answer.text})
        if self._json:
            print_json(build_summary(answer, self._model))
        else:
            ERRORS.print(format_statistics(answer), style="dim", markup=False, soft_wrap=True)

    def _print_answer(self, answer: ChatAnswer) -> None:
        pieces = stream_chat(self._client, self._model, self._messages, answer, **self._options)
        try:
            for piece in pieces:
                if not self._json:
                    typer.echo(piece, nl=False)
                    sys.stdout.flush()
        finally:
            pieces.close()
            if answer.text and not self._json:
                typer.echo()


def wait_while_loading(ask: Callable[[], None]) -> None:
    """Ask, and ask again while the server says that the model is being opened, or that it is busy."""
    deadline = time.monotonic() + LOADING_S
    while True:
        try:
            return ask()
        except UnavailableError as exc:
            if exc.retry_after is None or time.monotonic() + exc.retry_after > deadline:
                raise
            ERRORS.print(str(exc), style="dim", markup=False, soft_wrap=True)
            time.sleep(exc.retry_after)


def read_piped_question() -> str:
    """Read all of standard input as one question; where it is empty, the demo's own."""
    text = sys.stdin.read().strip() if sys.stdin is not None else ""
    if text:
        return text
    ERRORS.print(f"{PROMPT}{QUESTION}", style="bold", markup=False)
    return QUESTION


def read_questions() -> Iterator[str]:
    """Read questions from the terminal until its end; Ctrl-C at the prompt forgets the line."""
    with suppress(ImportError):
        import readline  # noqa: F401 - lets `input` edit lines and recall earlier ones
    while True:
        try:
            question = input(PROMPT).strip()
        except KeyboardInterrupt:
            typer.echo()
            continue
        except EOFError:
            typer.echo()
            return
        if question == EXIT:
            return
        if question:
            yield question


def format_statistics(answer: ChatAnswer) -> str:
    """Format what an answer took: tokens, their speed, the time to the first one, and the price on Lambda."""
    parts = [f"{answer.completion_tokens} tokens"]
    if answer.tokens_per_second is not None:
        parts.append(f"{answer.tokens_per_second:.1f} tokens/s")
    if answer.first_token_seconds is not None:
        parts.append(f"first token {answer.first_token_seconds:.2f} s")
    if answer.usd is not None:
        parts.append(f"${answer.usd:.7f} on Lambda")
    if answer.finish_reason == "length":
        parts.append("cut at the limit of tokens")
    return ", ".join(parts)


def build_summary(answer: ChatAnswer, model: str) -> dict[str, object]:
    """Build the same for scripts."""
    return {"model": model, **msgspec.to_builtins(answer), "tokens_per_second": answer.tokens_per_second}
