"""Replay what was recorded of a version, golden requests or golden prompts, on the open version."""

from pilotlight.runtime.golden import GoldenDocument, replay_exchanges
from pilotlight.runtime.model_cache import LoadedModel


def replay_document(document: GoldenDocument, model: LoadedModel) -> None:
    """Replay golden requests or prompts on an open model; `ModelRefusedError` if an answer differs."""
    replay_exchanges(document, model.session)
    if document.prompts and model.language_model is not None:
        from pilotlight.runtime.golden_prompts import replay_prompts  # few functions generate

        replay_prompts(document, model.language_model)
