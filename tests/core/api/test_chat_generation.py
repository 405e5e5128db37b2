"""Conversations to the engine's requests."""

import pytest

from pilotlight.api.chat_generation import build_generation_request
from pilotlight.api.conversation import Conversation, OutputPlan
from pilotlight.api.request_context import RequestContext
from pilotlight.api.schemas.chat import CompletionBody
from pilotlight.api.text_completions import plan_prompts
from tests.fake_language_model import FakeLanguageModel


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_a_request_goes_on_with_sequences_of_its_tenant_alone(tenant: str) -> None:
    model, context = FakeLanguageModel([]), RequestContext()
    context.tenant = tenant
    chat = build_generation_request(model, Conversation(messages=()), (1, 2), OutputPlan(), context)  # type: ignore[arg-type]  # a fake
    (plan,) = plan_prompts(CompletionBody(model="chat", prompt="x"), model, context)  # type: ignore[arg-type]  # a fake
    assert plan.request is not None
    assert chat.cache_owner == plan.request.cache_owner == tenant
