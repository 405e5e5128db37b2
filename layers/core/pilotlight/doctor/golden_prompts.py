"""Check that the language models of a server continue their golden prompts as recorded when they were published."""

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from pilotlight.client.client import Client
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import CHAMPION
from pilotlight.doctor.finding import CheckFailedError, HealthCheck, NotCheckedError, join_names
from pilotlight.doctor.server import format_reply
from pilotlight.errors import ModelRefusedError, NotFoundError, PilotlightError
from pilotlight.registry.registry import Registry, version_path
from pilotlight.runtime.golden import GoldenDocument, GoldenPrompt

COMPLETIONS = "/v1/completions"
JSON_TYPE = {"content-type": "application/json"}


class GoldenCompletionChoice(Struct, frozen=True):
    """What is read of a choice."""

    text: str
    token_ids: list[int] = []


class GoldenCompletion(Struct, frozen=True):
    """What is read of a completion."""

    choices: list[GoldenCompletionChoice]


class GoldenPromptChecks:
    """The check of a server's language models, with the registry of its store, if that is known."""

    def __init__(self, client: Client, registry: Registry | None = None) -> None:
        self._client = client
        self._registry = registry

    def list_checks(self) -> tuple[HealthCheck, ...]:
        """List all checks: one."""
        return (HealthCheck("golden prompts", self.check_golden_prompts),)

    def check_golden_prompts(self) -> str:
        """Check that every language model that is champion continues its golden prompts as recorded."""
        if self._registry is None:
            raise NotCheckedError("Their records lie in the store; give it as --store.")
        wrong, asked, models = list[str](), 0, 0
        for manifest, prompts in read_golden_prompts(self._registry):
            models += 1
            for number, prompt in enumerate(prompts, 1):
                asked += 1
                try:
                    self._replay_prompt(manifest, number, prompt)
                except PilotlightError as exc:
                    wrong.append(f"{manifest.name}:{manifest.version}: {str(exc).rstrip('.')}")
        if wrong:
            raise CheckFailedError(
                f"{len(wrong)} of {asked} golden prompts fail: {join_names(wrong)}; `pilotlight rollback` it."
            )
        if not models:
            raise NotCheckedError("No champion is a language model with golden prompts.")
        return f"{asked} prompts of {models} language models are continued as recorded."

    def _replay_prompt(self, manifest: Manifest, number: int, prompt: GoldenPrompt) -> None:
        """Send a prompt in tokens, and compare the tokens that come back."""
        body = {
            "model": f"{manifest.name}:{manifest.version}",
            "prompt": prompt.tokens,
            "max_tokens": len(prompt.expected),
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        reply = self._client.send_request("POST", COMPLETIONS, msgspec.json.encode(body), JSON_TYPE)
        if reply.status != 200:
            raise ModelRefusedError(f"Golden prompt {number} is answered with {format_reply(reply)}.")
        try:
            (choice,) = msgspec.json.decode(reply.content, type=GoldenCompletion).choices
        except (msgspec.MsgspecError, ValueError) as exc:
            raise ModelRefusedError(f"The answer to golden prompt {number} is no completion: {exc}.") from exc
        if tuple(choice.token_ids) != prompt.expected:
            raise ModelRefusedError(
                f"Golden prompt {number}, {prompt.text!r}, is continued with {choice.text!r}, recorded as "
                f"{prompt.expected_text!r}."
            )


def read_golden_prompts(registry: Registry) -> Iterator[tuple[Manifest, tuple[GoldenPrompt, ...]]]:
    """Yield the champions that are language models with golden prompts, with these."""
    for name in registry.list_models():
        try:
            manifest = registry.load_manifest(name, registry.load_alias(name, CHAMPION).version)
        except NotFoundError:
            continue  # the checks of the store report it
        if manifest.decoder is not None and manifest.golden is not None:
            stored = registry.store.get(version_path(name, manifest.version, manifest.golden))
            yield manifest, decode_document(stored.data, GoldenDocument, manifest.golden).prompts
