"""Make the files of a language model's version from a Hugging Face folder or a GGUF file, and its draft."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from functions.train.evaluation.markdown_table import format_markdown_table
from functions.train.language_models import decoder_size, served_model, text_scoring
from functions.train.language_models.checkpoint_source import read_decoder_checkpoint
from functions.train.language_models.decoder_config import DecoderCheckpoint
from functions.train.language_models.decoder_variants import DecoderChoice, DecoderVariants, Quantize
from functions.train.language_models.graph_builder import OPSET
from functions.train.language_models.tokenizer_document import load_tokenizer
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.contracts.manifest import GenerationCost, ManifestDraft, Precision, TensorSpec
from pilotlight.contracts.metric import METRICS, PERPLEXITY, format_value
from pilotlight.errors import InvalidInputError

TOKENIZER_FILE, TEMPLATE_FILE = "tokenizer.json", "chat_template.jinja"
REPORT_FILE, CARD_FILE, GOLDEN_FILE, DRAFT_FILE = "report.json", "model-card.md", "golden.json", "draft.json"
INPUTS = (TensorSpec("text_input", "BYTES", (1,)),)  # of Triton's generate extension
OUTPUTS = (TensorSpec("text_output", "BYTES", (1,)),)
SMALLEST: dict[str, Precision] = {"auto": "int8", "int8": "int8", "int4": "int4", "none": "fp32"}  # that may be served
CARD = """\
# {name}

A language model of the family {family}, brought in from `{origin}` by `pilotlight publish`; it was not trained here.
Its {serve} variant is served, with up to {context:,} tokens of prompt and answer together. Licence: {licence}.

## Results

On {text}, {tokens:,} tokens:

{results}

{verdict}

## Limitations

- Perplexity on one text says how much quantization changed, not how good answers are.
"""


@dataclass(frozen=True)
class PublishOptions:
    """What the publisher asks for."""

    name: str
    quantize: Quantize = "auto"
    evaluation: Path | None = None
    context: int | None = None


def write_version_files(path: Path, options: PublishOptions, folder: Path) -> ManifestDraft:
    """Read the model at PATH, write its graph and all other files to a folder, and return the draft."""
    checkpoint = read_decoder_checkpoint(path)
    spec = build_spec(checkpoint, options.context)
    smallest = SMALLEST[options.quantize]
    decoder_size.check_function_holds(checkpoint.config, spec, smallest)
    decoder_size.check_quantizable(checkpoint.config, smallest)
    decoder_size.check_disk_holds(checkpoint.config, smallest, folder)
    template = served_model.build_template(checkpoint)
    text = text_scoring.read_evaluation_text(options.evaluation)
    tokenizer = open_tokenizer(checkpoint)
    tokens = tokenizer.encode(text.text, add_special_tokens=False).ids
    windows = text_scoring.split_windows(tokens, spec)
    variants = DecoderVariants(checkpoint, spec, text, windows, folder)
    choice = variants.choose(options.quantize)
    decoder_size.check_function_holds(checkpoint.config, spec, choice.precision)
    graph = folder / choice.variant.graph
    model = served_model.open_served_model(options.name, graph, spec, checkpoint.tokenizer_json, template)
    card = format_card(options.name, checkpoint, spec, text.name, choice)
    files = {TOKENIZER_FILE: checkpoint.tokenizer_json, REPORT_FILE: encode_document(choice.report), CARD_FILE: card}
    if checkpoint.chat_template is not None:
        files[TEMPLATE_FILE] = checkpoint.chat_template.encode()
    golden = served_model.record_golden(model, choice.precision)
    if golden is not None:
        files[GOLDEN_FILE] = encode_document(golden)
    del model
    cost = served_model.measure_cost(graph, spec)
    draft = build_draft(options.name, checkpoint, spec, choice, cost, has_golden=golden is not None)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / DRAFT_FILE).write_bytes(encode_document(draft))
    return draft


def build_spec(checkpoint: DecoderCheckpoint, context: int | None) -> DecoderSpec:
    """Describe the decoder for serving."""
    config = checkpoint.config
    return DecoderSpec(
        family=config.family,
        context_length=decoder_size.choose_context(config, context),
        vocabulary_size=config.vocabulary_size,
        layers=config.layers,
        kv_heads=config.kv_heads,
        head_size=config.head_size,
        end_tokens=checkpoint.end_tokens,
        begin_token=checkpoint.begin_token,
        chat_template=TEMPLATE_FILE if checkpoint.chat_template is not None else None,
        special_tokens=checkpoint.special_tokens,
    )


def open_tokenizer(checkpoint: DecoderCheckpoint) -> Tokenizer:
    """Open the tokenizer; `InvalidInputError` if it cannot be read, or has tokens that the decoder does not know."""
    tokenizer = load_tokenizer(checkpoint.tokenizer_json, checkpoint.origin)
    known = checkpoint.config.vocabulary_size
    unknown = [token for token, number in tokenizer.get_vocab(with_added_tokens=True).items() if number >= known]
    if unknown:
        raise InvalidInputError(
            f"The tokenizer of {checkpoint.origin} has {len(unknown):,} tokens, {unknown[0]!r} among them, beyond the "
            f"{known:,} that the decoder knows; bring the tokenizer that belongs to it."
        )
    return tokenizer


def build_draft(
    name: str,
    checkpoint: DecoderCheckpoint,
    spec: DecoderSpec,
    choice: DecoderChoice,
    cost: GenerationCost | None,
    *,
    has_golden: bool,
) -> ManifestDraft:
    """Build the model's part of the manifest."""
    return ManifestDraft(
        name=name,
        task="generation",
        inputs=INPUTS,
        outputs=OUTPUTS,
        variants={choice.precision: choice.variant},
        serve=choice.precision,
        metric=PERPLEXITY,
        budget=METRICS[PERPLEXITY].default_budget,
        opset=OPSET,
        evaluation=choice.report.evaluation,
        report=REPORT_FILE,
        golden=GOLDEN_FILE if has_golden else None,
        generation_cost=cost,
        tokenizer=TOKENIZER_FILE,
        decoder=spec,
        licence=checkpoint.licence,
    )


def format_card(name: str, checkpoint: DecoderCheckpoint, spec: DecoderSpec, text: str, choice: DecoderChoice) -> bytes:
    """Format the model card."""
    report = choice.report
    rows = [
        (
            f"**{precision}**, served" if precision == choice.precision else precision,
            f"{one.bytes / 1e6:,.1f}",
            format_value(PERPLEXITY, one.metrics[PERPLEXITY]),
            f"{one.metrics.get('agreement', 1.0):.1%}",
            f"{one.latency_ms:.1f}",
        )
        for precision, one in report.variants.items()
    ]
    header = ("variant", "MB", "perplexity", "likeliest token as in fp32", "ms a token")
    return CARD.format(
        name=name,
        family=spec.family,
        origin=Path(checkpoint.origin).name,
        serve=choice.precision,
        context=spec.context_length,
        licence=checkpoint.licence or "not told",
        text=text,
        tokens=report.requests,
        results=format_markdown_table(header, rows),
        verdict=report.verdict,
    ).encode()
