"""What the training step makes of a GPU: `python -m functions.train.benchmark`.

A decoder of Llama's shape with 354 million weights learns the bytes of python's own reference, by the step and the
prefetch that every recipe runs on: with the compiler and without, with the fused optimiser and without, in bf16 and in
fp32. The first steps are not timed. It needs torch, numpy and rich, no pydantic. Without a GPU a
tiny model shows that it works, and nothing else.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from functions.train.data import loader
from functions.train.data.passes import MiniBatch
from functions.train.models.decoder import Decoder
from functions.train.training import mfu
from functions.train.training.step import TrainStep, get_process_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from functions.train.data import Array
    from functions.train.training.precision import TrainingPrecision

WARM_UP = 10  # steps: the compiler, the allocator, cuDNN's choices
SMOOTHING = 0.9  # of the losses that are compared
GIB = 2**30
ROOM_GIB = 10  # of a GPU's memory for each sequence of the large model, uncompiled in fp32


@dataclass(frozen=True)
class Shape:
    """The decoder's sizes; the names are those of the recipe's `model`."""

    layers: int = 24
    width: int = 1024
    heads: int = 8
    kv_heads: int = 4
    hidden: int = 3328
    context: int = 2048
    vocabulary: int = 32768
    tied: bool = True
    dropout: float = 0.0
    base: float = 1e4
    epsilon: float = 1e-5


MODELS = {
    "tiny": Shape(2, 64, 4, 2, 128, 64, 256),
    "124m": Shape(12, 768, 6, 6, 2048, 1024, 50304),
    "350m": Shape(),
    "1b": Shape(20, 2048, 16, 8, 6144),
}


@dataclass(frozen=True)
class Loss:
    """Plain cross-entropy, as a recipe has it."""

    name: str = "cross_entropy"
    label_smoothing: float = 0.0
    class_weights: None = None


@dataclass(frozen=True)
class Adamw:
    """AdamW, as a recipe has it."""

    name: str = "adamw"
    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1


@dataclass(frozen=True)
class Alone:
    """One process, as a recipe has it."""

    strategy: str = "auto"


@dataclass(frozen=True)
class Way:
    """What of a recipe the step looks at."""

    precision: TrainingPrecision = "bf16"
    compile: bool = True
    fused: bool = True
    optimiser: Adamw = field(default_factory=Adamw)
    loss: Loss = field(default_factory=Loss)
    distributed: Alone = field(default_factory=Alone)
    accumulation: int = 1
    clip_norm: float = 1.0
    ema: None = None

    def __str__(self) -> str:
        return f"{self.precision}, {'compiled' if self.compile else 'eager'}, {'' if self.fused else 'not '}fused"


@dataclass(frozen=True)
class Tokens:
    """What the step asks of a data set: that it has classes, and of what kind an example is."""

    inputs: Array
    classes: tuple[str, ...] = ("token",)


class Flat(nn.Module):
    """A decoder as a classifier of tokens: (N, T) to (N T, vocabulary)."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The logits of every token."""
        logits: torch.Tensor = self.decoder(tokens).flatten(0, 1)
        return logits


@dataclass(frozen=True)
class Measured:
    """One way, measured; of one that did not fit into memory, the name alone."""

    way: str
    step_ms: float | None = None  # the median
    tokens_per_s: float | None = None
    mfu: float | None = None  # of a GPU that the table knows
    memory_gib: float | None = None  # at its peak; on a GPU
    losses: tuple[float, ...] = ()  # nats, of every step


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every way, print the table, save the numbers."""
    options, console = parser().parse_args(arguments), Console()
    where = get_process_device()
    name = options.model or ("350m" if where.type == "cuda" else "tiny")
    shape = MODELS[name] if options.context is None else replace(MODELS[name], context=options.context)
    batch = options.batch or fitting(where)
    if where.type != "cuda":
        torch.set_num_threads(1)  # more of them wait for each other longer than they work
        console.print(f"No GPU here: the {name} model on the CPU, which says nothing about a GPU's speed.")
    console.print(f"{label(where)}, torch {torch.__version__}; {describe(name, shape)}, {batch} sequences a step")
    measured = [attempt(way, shape, batch, options.steps, where, console) for way in ways(where, options.compile)]
    console.print(table(measured))
    apart = difference(measured)
    if apart is not None:
        console.print(f"bf16 against fp32, same seed: smoothed losses at most {apart:.4f} nats apart.")
    said = {
        "device": label(where),
        "torch": torch.__version__,
        "model": name,
        "shape": asdict(shape),
        "batch": batch,
        "parameters": weights(shape),
        "rows": [asdict(row) for row in measured],
        "bf16_fp32_apart": apart,
    }
    options.out.write_text(json.dumps(said, indent=1), "utf-8")
    console.print(f"Saved in {options.out}{draw(measured, options.out.with_suffix('.png'))}.")
    return 0


def parser() -> argparse.ArgumentParser:
    """The words of the command line."""
    words = argparse.ArgumentParser(
        prog="python -m functions.train.benchmark", description=(__doc__ or "").split("\n")[0]
    )
    words.add_argument("--model", choices=MODELS, help="350m on a GPU, tiny without, unless given")
    words.add_argument(
        "--steps", type=int, default=60, help=f"to time, after {WARM_UP} to warm up; %(default)s unless given"
    )
    words.add_argument("--batch", type=int, help="sequences in a step; what fits unless given")
    words.add_argument("--context", type=int, help="tokens in a sequence; the model's unless given")
    words.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="with torch.compile; on a GPU unless given"
    )
    words.add_argument(
        "--out", type=Path, default=Path("benchmark.json"), help="where to save; %(default)s unless given"
    )
    return words


def fitting(where: torch.device) -> int:
    """How many sequences are sure to fit, a power of two."""
    if where.type != "cuda":
        return 4
    room = int(torch.cuda.get_device_properties(where).total_memory / GIB / ROOM_GIB)
    return 1 << max(0, min(4, room.bit_length() - 1))


def ways(where: torch.device, compiled: bool | None) -> list[Way]:
    """What to compare: everything on, then each thing off; without a compiler, less."""
    if not (where.type == "cuda" if compiled is None else compiled):
        return [Way(compile=False), Way("fp32", compile=False), Way(compile=False, fused=False)]
    return [Way(), Way("fp32"), Way(compile=False), Way(fused=False)]


def attempt(way: Way, shape: Shape, batch: int, steps: int, where: torch.device, console: Console) -> Measured:
    """Measure one way; one that needs too much memory ends nothing."""
    try:
        with console.status(f"{way}: {WARM_UP + steps} steps"):
            return measure(way, shape, batch, steps, where)
    except torch.cuda.OutOfMemoryError:
        console.print(f"{way}: {batch} sequences do not fit into memory; try a smaller --batch.")
        return Measured(str(way))
    finally:
        clean(where)


def measure(way: Way, shape: Shape, batch: int, steps: int, where: torch.device) -> Measured:
    """Train, and time each step but the first ones; nothing waits for the GPU before the last step."""
    torch.manual_seed(0)
    stepper = stepping(way, shape, where)
    rate, clock, losses = way.optimiser.learning_rate, Clock(where), list[torch.Tensor]()
    for number, (inputs, truth) in enumerate(windows(shape, batch, WARM_UP + steps, where), 1):
        if number == WARM_UP + 1:
            clock.start()
        losses.append(stepper.take_step(inputs, truth, rate, number).loss)
        if number > WARM_UP:
            clock.tick()
    seconds = statistics.median(clock.seconds())
    speed = batch * shape.context / seconds
    peak = mfu.find_peak_flops(label(where), way.precision)
    return Measured(
        way=str(way),
        step_ms=seconds * 1e3,
        tokens_per_s=speed,
        mfu=None if peak is None else speed * per_token(shape) / peak,
        memory_gib=torch.cuda.max_memory_allocated(where) / GIB if where.type == "cuda" else None,
        losses=tuple(torch.stack(losses).tolist()),
    )


def stepping(way: Way, shape: Shape, where: torch.device) -> TrainStep:
    """The step of a recipe that says the same."""
    network = Flat(Decoder(shape, shape.vocabulary)).to(where).train()  # type: ignore[arg-type]  # has the recipe's words
    window = np.zeros((1, shape.context), np.int64)
    stepper = TrainStep(network, Tokens(window), way)  # type: ignore[arg-type]  # both as far as the step looks
    if not way.fused:
        for group in stepper.optimiser.param_groups:
            group["fused"] = False
    return stepper


class Clock:
    """The seconds between ticks: on a GPU by events in its own queue, which the program does not wait for."""

    def __init__(self, where: torch.device) -> None:
        self._gpu = where.type == "cuda"
        self._ticks: list[Any] = []

    def start(self) -> None:
        """Begin."""
        self.tick()

    def tick(self) -> None:
        """A step is over, or will be when the GPU gets here."""
        if self._gpu:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            event.record()
            self._ticks.append(event)
        else:
            self._ticks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Between the ticks."""
        pairs = list(zip(self._ticks, self._ticks[1:], strict=False))
        if not self._gpu:
            return [after - before for before, after in pairs]
        torch.cuda.synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in pairs]


def windows(shape: Shape, batch: int, steps: int, where: torch.device) -> Iterator[MiniBatch]:
    """Windows of text at random places, the same in every run: (batch, context), and what follows each token, (N,)."""
    text, random = corpus(), torch.Generator().manual_seed(0)

    def drawn() -> Iterator[MiniBatch]:
        for _ in range(steps):
            starts = torch.randint(len(text) - shape.context - 1, (batch, 1), generator=random)
            tokens = text[starts + torch.arange(shape.context + 1)]
            yield tokens[:, :-1].contiguous(), tokens[:, 1:].flatten()

    return loader.prefetch_to_device(drawn(), where) if where.type == "cuda" else drawn()


def corpus() -> torch.Tensor:
    """Python's own reference as bytes, int64: about 465,000 of real English, wherever there is a python."""
    from pydoc_data.topics import topics

    return torch.frombuffer(bytearray("".join(topics.values()).encode()), dtype=torch.uint8).long()


def per_token(shape: Shape) -> float:
    """The FLOPs of a training step for each token."""
    looked_up = 0 if shape.tied else shape.vocabulary * shape.width
    return mfu.estimate_decoder_flops(weights(shape) - looked_up, shape.layers, shape.width, shape.context)


def weights(shape: Shape) -> int:
    """How many weights the decoder has."""
    with torch.device("meta"):
        decoder = Decoder(shape, shape.vocabulary)  # type: ignore[arg-type]  # it reads sizes alone, as the options have them
    return sum(weight.numel() for weight in decoder.parameters())


def difference(measured: Sequence[Measured]) -> float | None:
    """The largest distance between the smoothed losses of the first two rows, bf16 and fp32, in nats."""
    curves = [smooth(row.losses) for row in measured[:2]]
    return max(abs(a - b) for a, b in zip(*curves, strict=True)) if all(curves) else None


def smooth(losses: Sequence[float]) -> list[float]:
    """Their exponential moving average, corrected for its start at zero."""
    average, found = 0.0, []
    for number, loss in enumerate(losses, 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        found.append(average / (1 - SMOOTHING**number))
    return found


def table(measured: Sequence[Measured]) -> Table:
    """The rows for a person."""
    shown = Table(
        "way", *(f"{word}" for word in ("step, ms", "tokens/s", "MFU", "memory, GiB", "first loss", "last loss"))
    )
    for row in measured:
        ends = (f"{row.losses[0]:.3f}", f"{smooth(row.losses)[-1]:.3f}") if row.losses else ("", "")
        numbers = (row.step_ms, ".1f"), (row.tokens_per_s, ",.0f"), (row.mfu, ".1%"), (row.memory_gib, ".1f")
        shown.add_row(row.way, *("" if value is None else format(value, kind) for value, kind in numbers), *ends)
    return shown


def draw(measured: Sequence[Measured], path: Path) -> str:
    """The smoothed losses as a picture, where there is matplotlib; gives what to add to the sentence."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "; there is no matplotlib to draw the losses with"
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in measured[:2]:
        axes.plot(smooth(row.losses), label=row.way)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, smoothed (nats)")
    axes.legend(frameon=False)
    figure.savefig(path)
    return f" and {path}"


def describe(name: str, shape: Shape) -> str:
    """The model in a few words."""
    return f"{name}: {weights(shape) / 1e6:,.1f} million weights, context {shape.context}"


def label(where: torch.device) -> str:
    """The device's name."""
    return torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"


def clean(where: torch.device) -> None:
    """Forget the last model and what was compiled for it."""
    torch._dynamo.reset()
    gc.collect()
    if where.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(where)


if __name__ == "__main__":
    sys.exit(main())
