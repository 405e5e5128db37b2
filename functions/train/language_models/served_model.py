"""Open the served variant as a function does, once before it is published: its golden prompts, its cost."""

from pathlib import Path

from functions.train.language_models.decoder_config import DecoderCheckpoint
from functions.train.language_models.progress import ProgressLine
from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.contracts.manifest import GenerationCost, Precision
from pilotlight.errors import InvalidInputError
from pilotlight.generation.causal_model import CausalModel
from pilotlight.generation.chat_template import ChatTemplate
from pilotlight.generation.language_model import LanguageModel
from pilotlight.generation.text_tokenizer import TextTokenizer
from pilotlight.runtime import generation_cost, golden_prompts
from pilotlight.runtime.golden import GoldenDocument
from pilotlight.runtime.session import open_decoder_session


def build_template(checkpoint: DecoderCheckpoint) -> ChatTemplate | None:
    """Build the chat template, if there is one; `InvalidInputError` if it cannot be read."""
    text = checkpoint.chat_template
    return None if text is None else ChatTemplate(text, checkpoint.special_tokens)


def open_served_model(
    name: str, graph: Path, spec: DecoderSpec, tokenizer_json: bytes, template: ChatTemplate | None
) -> LanguageModel:
    """Open a graph with its tokenizer and its chat template."""
    return LanguageModel(
        CausalModel(open_decoder_session(graph), spec),
        TextTokenizer(tokenizer_json),
        name=name,
        chat_template=template,
    )


def record_golden(model: LanguageModel, precision: Precision) -> GoldenDocument | None:
    """Record golden prompts: questions by the chat template, or beginnings of texts where it takes no plain question.

    None if the model is sure of no answer.
    """
    with ProgressLine("Recording golden prompts"):
        try:
            return golden_prompts.record_golden_prompts(model, precision)
        except InvalidInputError:  # the template's own: it may ask for a system message or for tools
            return golden_prompts.record_golden_prompts(model, precision, golden_prompts.BEGINNINGS)


def measure_cost(graph: Path, spec: DecoderSpec) -> GenerationCost | None:
    """Measure in a process of its own how fast the graph is, and how much memory it takes; None if that fails."""
    with ProgressLine("Measuring speed and memory"):
        return generation_cost.measure_generation(graph, spec)
