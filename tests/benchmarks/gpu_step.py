"""What the training step makes of a GPU: `python -m tests.benchmarks.gpu_step`.

A decoder of Llama's shape with 354 million weights learns the bytes of python's own reference, by the step and the
prefetch that every recipe runs on: with the compiler and without, with the fused optimiser and without, in bf16 and in
fp32. The first steps are not timed. Without a GPU a tiny model shows that it works, and nothing else.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn

from functions.train.data import loader
from functions.train.data.dataset import Dataset
from functions.train.data.passes import MiniBatch
from functions.train.models.decoder import Decoder
from functions.train.training import mfu
from functions.train.training.device import get_process_device
from functions.train.training.precision import TrainingPrecision
from functions.train.training.step import TrainStep
from pilotlight.recipes.schema import DecoderOptions, Recipe, load_recipe

WARM_UP_STEPS = 10  # for the compiler, the allocator and cuDNN's choices
SMOOTHING = 0.9  # of the losses that are compared
GIB = 2**30
SEQUENCE_GIB = 10  # of a GPU's memory for each sequence of the large model, uncompiled in fp32
RECIPE = ("optimiser.learning_rate=3e-4", "optimiser.betas=[0.9, 0.95]", "optimiser.weight_decay=0.1", "clip_norm=1")


@dataclass(frozen=True)
class LanguageModelSize:
    """The sizes of a decoder."""

    options: DecoderOptions
    vocabulary: int

    @property
    def context(self) -> int:
        """The tokens in a sequence."""
        return self.options.context


def build_size(
    layers: int, width: int, heads: int, kv_heads: int, hidden: int, context: int, vocabulary: int
) -> LanguageModelSize:
    """Build a size by the words of the recipe's `model`."""
    options = DecoderOptions(
        architecture="decoder",
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        hidden=hidden,
        context=context,
    )
    return LanguageModelSize(options, vocabulary)


MODELS = {
    "tiny": build_size(2, 64, 4, 2, 128, 64, 256),
    "124m": build_size(12, 768, 6, 6, 2048, 1024, 50304),
    "350m": build_size(24, 1024, 8, 4, 3328, 2048, 32768),
    "1b": build_size(20, 2048, 16, 8, 6144, 2048, 32768),
}


@dataclass(frozen=True)
class StepVariant:
    """What is turned on or off in the step."""

    precision: TrainingPrecision = "bf16"
    compile: bool = True
    fused: bool = True

    def __str__(self) -> str:
        return f"{self.precision}, {'compiled' if self.compile else 'eager'}, {'' if self.fused else 'not '}fused"

    @property
    def recipe(self) -> Recipe:
        """A recipe with the same settings."""
        settings = (f"precision={self.precision}", f"compile={str(self.compile).lower()}")
        return load_recipe("topics-lm", [*RECIPE, *settings])


class TokenClassifier(nn.Module):
    """A decoder as a classifier of tokens: (N, T) to (N T, vocabulary)."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Compute the logits of every token."""
        logits: torch.Tensor = self.decoder(tokens).flatten(0, 1)
        return logits


@dataclass(frozen=True)
class StepMeasurement:
    """One variant, measured; of one that did not fit into memory, the name alone."""

    way: str
    step_ms: float | None = None  # the median
    tokens_per_s: float | None = None
    mfu: float | None = None  # of a GPU that the table knows
    memory_gib: float | None = None  # at its peak; on a GPU
    losses: tuple[float, ...] = ()  # nats, of every step


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every variant, print the table, save the numbers."""
    options, console, device = build_parser().parse_args(arguments), Console(), get_process_device()
    name = options.model or ("350m" if device.type == "cuda" else "tiny")
    size = MODELS[name] if options.context is None else with_context(MODELS[name], options.context)
    batch = options.batch or choose_batch(device)
    if device.type != "cuda":
        torch.set_num_threads(1)  # more of them wait for each other longer than they work
        console.print(f"No GPU here: the {name} model on the CPU, which says nothing about a GPU's speed.")
    console.print(
        f"{get_device_name(device)}, torch {torch.__version__}; {describe_model(name, size)}, {batch} sequences a step"
    )
    measurements = [
        try_variant(variant, size, batch, options.steps, device, console)
        for variant in list_variants(device, options.compile)
    ]
    console.print(build_table(measurements))
    apart = compare_losses(measurements)
    if apart is not None:
        console.print(f"bf16 against fp32, same seed: smoothed losses at most {apart:.4f} nats apart.")
    document = {
        "device": get_device_name(device),
        "torch": torch.__version__,
        "model": name,
        "shape": size.options.model_dump() | {"vocabulary": size.vocabulary},
        "batch": batch,
        "parameters": count_weights(size),
        "rows": [asdict(row) for row in measurements],
        "bf16_fp32_apart": apart,
    }
    save_result(document, measurements, options.out, console)
    return 0


def save_result(
    document: dict[str, Any], measurements: Sequence[StepMeasurement], path: Path, console: Console
) -> None:
    """Save the numbers as JSON, and the losses as a picture beside it."""
    path.write_text(json.dumps(document, indent=1), "utf-8")
    picture = path.with_suffix(".png")
    draw_losses(measurements, picture)
    console.print(f"Saved in {path} and {picture}.")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu_step", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--model", choices=MODELS, help="350m on a GPU, tiny without, unless given")
    parser.add_argument(
        "--steps", type=int, default=60, help=f"to time, after {WARM_UP_STEPS} to warm up; %(default)s unless given"
    )
    parser.add_argument("--batch", type=int, help="sequences in a step; what fits unless given")
    parser.add_argument("--context", type=int, help="tokens in a sequence; the model's unless given")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="with torch.compile; on a GPU unless given"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("benchmark.json"), help="where to save; %(default)s unless given"
    )
    return parser


def with_context(size: LanguageModelSize, context: int) -> LanguageModelSize:
    """Replace the number of tokens in a sequence."""
    return replace(size, options=size.options.model_copy(update={"context": context}))


def choose_batch(device: torch.device) -> int:
    """Choose how many sequences are sure to fit, a power of two."""
    if device.type != "cuda":
        return 4
    fitting = int(torch.cuda.get_device_properties(device).total_memory / GIB / SEQUENCE_GIB)
    return 1 << max(0, min(4, fitting.bit_length() - 1))


def list_variants(device: torch.device, with_compiler: bool | None) -> list[StepVariant]:
    """List what to compare: everything on, then each thing off; without a compiler, less."""
    if not (device.type == "cuda" if with_compiler is None else with_compiler):
        return [
            StepVariant(compile=False),
            StepVariant("fp32", compile=False),
            StepVariant(compile=False, fused=False),
        ]
    return [StepVariant(), StepVariant("fp32"), StepVariant(compile=False), StepVariant(fused=False)]


def try_variant(
    variant: StepVariant, size: LanguageModelSize, batch: int, steps: int, device: torch.device, console: Console
) -> StepMeasurement:
    """Measure one variant; one that needs too much memory ends nothing."""
    try:
        with console.status(f"{variant}: {WARM_UP_STEPS + steps} steps"):
            return measure_variant(variant, size, batch, steps, device)
    except torch.cuda.OutOfMemoryError:
        console.print(f"{variant}: {batch} sequences do not fit into memory; try a smaller --batch.")
        return StepMeasurement(str(variant))
    finally:
        free_memory(device)


def measure_variant(
    variant: StepVariant, size: LanguageModelSize, batch: int, steps: int, device: torch.device
) -> StepMeasurement:
    """Train, and time each step but the first ones; nothing waits for the GPU before the last step."""
    torch.manual_seed(0)
    train_step = build_train_step(variant, size, device)
    rate, clock, losses = variant.recipe.optimiser.learning_rate, StepClock(device), list[torch.Tensor]()
    for number, (inputs, targets) in enumerate(generate_windows(size, batch, WARM_UP_STEPS + steps, device), 1):
        if number == WARM_UP_STEPS + 1:
            clock.tick()
        losses.append(train_step.take_step(inputs, targets, rate, number).loss)
        if number > WARM_UP_STEPS:
            clock.tick()
    seconds = statistics.median(clock.compute_seconds())
    speed = batch * size.context / seconds
    peak = mfu.find_peak_flops(get_device_name(device), variant.precision)
    return StepMeasurement(
        way=str(variant),
        step_ms=seconds * 1e3,
        tokens_per_s=speed,
        mfu=None if peak is None else speed * estimate_token_flops(size) / peak,
        memory_gib=torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None,
        losses=tuple(torch.stack(losses).tolist()),
    )


def build_train_step(variant: StepVariant, size: LanguageModelSize, device: torch.device) -> TrainStep:
    """Build the step of a recipe with these settings."""
    model = TokenClassifier(Decoder(size.options, size.vocabulary)).to(device).train()
    window = np.zeros((1, size.context), np.int64)
    train_step = TrainStep(model, Dataset(window, window, classes=("token",)), variant.recipe)
    if not variant.fused:
        for group in train_step.optimiser.param_groups:
            group["fused"] = False
    return train_step


class StepClock:
    """The seconds between ticks: on a GPU by events in its own queue, which the program does not wait for."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._ticks: list[Any] = []

    def tick(self) -> None:
        """Record that a step is over, or will be when the GPU gets here."""
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            event.record()
            self._ticks.append(event)
        else:
            self._ticks.append(time.perf_counter())

    def compute_seconds(self) -> list[float]:
        """Compute the seconds between the ticks; waits for the GPU."""
        pairs = list(zip(self._ticks, self._ticks[1:], strict=False))
        if not self._on_gpu:
            return [after - before for before, after in pairs]
        torch.cuda.synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in pairs]


def generate_windows(size: LanguageModelSize, batch: int, steps: int, device: torch.device) -> Iterator[MiniBatch]:
    """Cut windows of text at random places, the same in every run: (batch, context), and the next tokens, (N,)."""
    text, random = load_reference_text(), torch.Generator().manual_seed(0)

    def draw_windows() -> Iterator[MiniBatch]:
        for _ in range(steps):
            starts = torch.randint(len(text) - size.context - 1, (batch, 1), generator=random)
            tokens = text[starts + torch.arange(size.context + 1)]
            yield tokens[:, :-1].contiguous(), tokens[:, 1:].flatten()

    return loader.prefetch_to_device(draw_windows(), device) if device.type == "cuda" else draw_windows()


def load_reference_text() -> torch.Tensor:
    """Load Python's own reference as bytes, int64: about 465,000 of real English, wherever there is a python."""
    return torch.frombuffer(bytearray("".join(topics.values()).encode()), dtype=torch.uint8).long()


def estimate_token_flops(size: LanguageModelSize) -> float:
    """Estimate the FLOPs of one training step for each token of a decoder: 6 N + 12 L T w.

    N counts the weights that multiply: the head, but not an embedding that is only looked up; the second term is
    attention over T tokens, all T of them though the causal mask leaves half. PaLM, appendix B.
    """
    options = size.options
    looked_up = 0 if options.tied else size.vocabulary * options.width
    return 6 * (count_weights(size) - looked_up) + 12 * options.layers * options.context * options.width


def count_weights(size: LanguageModelSize) -> int:
    """Count the weights of the decoder."""
    with torch.device("meta"):
        decoder = Decoder(size.options, size.vocabulary)
    return sum(weight.numel() for weight in decoder.parameters())


def compare_losses(measurements: Sequence[StepMeasurement]) -> float | None:
    """Compute the largest distance between the smoothed losses of the first two rows, bf16 and fp32, in nats."""
    curves = [smooth_losses(row.losses) for row in measurements[:2]]
    return max(abs(a - b) for a, b in zip(*curves, strict=True)) if all(curves) else None


def smooth_losses(losses: Sequence[float]) -> list[float]:
    """Compute the exponential moving average, corrected for its start at zero."""
    average, smoothed = 0.0, []
    for number, loss in enumerate(losses, 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed.append(average / (1 - SMOOTHING**number))
    return smoothed


def build_table(measurements: Sequence[StepMeasurement]) -> Table:
    """Build the table of all variants."""
    table = Table("way", "step, ms", "tokens/s", "MFU", "memory, GiB", "first loss", "last loss")
    for row in measurements:
        ends = (f"{row.losses[0]:.3f}", f"{smooth_losses(row.losses)[-1]:.3f}") if row.losses else ("", "")
        numbers = (row.step_ms, ".1f"), (row.tokens_per_s, ",.0f"), (row.mfu, ".1%"), (row.memory_gib, ".1f")
        table.add_row(row.way, *("" if value is None else format(value, kind) for value, kind in numbers), *ends)
    return table


def draw_losses(measurements: Sequence[StepMeasurement], path: Path) -> None:
    """Draw the smoothed losses of bf16 and fp32."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in measurements[:2]:
        axes.plot(smooth_losses(row.losses), label=row.way)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, smoothed (nats)")
    axes.legend(frameon=False)
    figure.savefig(path)


def describe_model(name: str, size: LanguageModelSize) -> str:
    """Describe the model in a few words."""
    return f"{name}: {count_weights(size) / 1e6:,.1f} million weights, context {size.context}"


def get_device_name(device: torch.device) -> str:
    """Return the name of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def free_memory(device: torch.device) -> None:
    """Forget the last model and what was compiled for it."""
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


if __name__ == "__main__":
    sys.exit(main())
