"""Lambda's entry: reads the settings, starts the fetch of models, and builds the handler once per environment."""

from pilotlight.runtime import cold_start

cold_start.begin_imports()

import os  # noqa: E402

from pilotlight.runtime.prefetch import parse_references, start_prefetch  # noqa: E402
from pilotlight.settings import Settings  # noqa: E402
from pilotlight.storage.object_store import open_store  # noqa: E402

SETTINGS = Settings.from_environment(os.environ)
PRELOADED_REFERENCES = parse_references(SETTINGS.preload)
STORE = start_prefetch(
    open_store(SETTINGS.store),
    PRELOADED_REFERENCES,
    max_age_seconds=SETTINGS.alias_seconds,
    budget_bytes=SETTINGS.model_memory_budget,
)

# The next imports load numpy and onnxruntime, which takes as long as the fetch of a hundred megabytes.
from functools import partial  # noqa: E402

from pilotlight.runtime.model_manager import ModelManager  # noqa: E402

MODEL_MANAGER = ModelManager.from_settings(SETTINGS, STORE, generates_text=True)
for reference in PRELOADED_REFERENCES[:1]:  # more would take CPU from the first request, which probably needs this one
    MODEL_MANAGER.load_in_background(reference)

# onnxruntime opens the fetched model while the interpreter imports what the first request needs.
from functions.generate.decisions_endpoints import DecisionsEndpoints  # noqa: E402
from functions.generate.embeddings_endpoints import EmbeddingsEndpoints  # noqa: E402
from functions.generate.messages_endpoints import MessagesEndpoints  # noqa: E402
from functions.generate.openai_endpoints import OpenAIEndpoints  # noqa: E402
from functions.generate.plain_bodies import read_plain_bodies  # noqa: E402
from functions.generate.responses_endpoints import ResponsesEndpoints  # noqa: E402
from functions.generate.snapstart import GenerateSnapStartHooks  # noqa: E402
from functions.generate.triton_endpoints import TritonEndpoints  # noqa: E402
from pilotlight.api.call_cost import CostMeter  # noqa: E402
from pilotlight.api.generation_errors import choose_error_formatter  # noqa: E402
from pilotlight.api.model_statistics import ModelStatistics  # noqa: E402
from pilotlight.api.request_context import STREAM_TIMEOUT_S  # noqa: E402
from pilotlight.api.router import Router  # noqa: E402
from pilotlight.api.usage_log import create_usage_log  # noqa: E402
from pilotlight.inference import InferenceService, create_environment_memory, create_recorder  # noqa: E402
from pilotlight.observability import correlation  # noqa: E402
from pilotlight.runtime.inference_deadline import DeadlineRunner  # noqa: E402
from pilotlight.text_generation import GenerationService  # noqa: E402


def build_router(settings: Settings, model_manager: ModelManager) -> Router:
    """Build the router of the language models, with the cost of each call and, if enabled, a usage log."""
    correlation.install_log_record_factory()
    statistics = ModelStatistics()
    service = GenerationService(model_manager, statistics)
    recorder = create_recorder(settings, model_manager)
    inference = InferenceService(
        model_manager, statistics, DeadlineRunner(), recorder, create_environment_memory(settings)
    )
    endpoints = (
        OpenAIEndpoints(service),
        ResponsesEndpoints(service),
        MessagesEndpoints(service),
        EmbeddingsEndpoints(inference),
        TritonEndpoints(service),
        DecisionsEndpoints(service, inference),
    )
    return Router(
        {path: read_plain_bodies(verbs) for each in endpoints for path, verbs in each.routes().items()},
        CostMeter(settings.memory_mb),
        usage_log=create_usage_log(settings.call_seconds),
        choose_error_formatter=choose_error_formatter,
        on_response=recorder.notify if recorder else None,
        gateway_timeout_s=STREAM_TIMEOUT_S,
    )


def build_generate_handler(settings: Settings) -> Router:
    """Build a handler for these settings that preloads nothing."""
    model_manager = ModelManager.from_settings(settings, open_store(settings.store), generates_text=True)
    return build_router(settings, model_manager)


handle = build_router(SETTINGS, MODEL_MANAGER)
GenerateSnapStartHooks(handle, MODEL_MANAGER, PRELOADED_REFERENCES, partial(open_store, SETTINGS.store)).install(
    SETTINGS.initialization
)
cold_start.finish_imports()
