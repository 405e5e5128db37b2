"""Measure what texts of a language model cost, in a process of its own: `python -m pilotlight.runtime.generation_cost`.

The process opens the graph as a handler does, with one thread and with as many as the machine or the largest function
has, reads a prompt and writes an answer. It has its own process because only a fresh one shows what memory that takes.
Publishing never fails because of it. No tokenizer is needed: the prompt's tokens are drawn.
"""

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from msgspec import Struct

from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.decoder import DecoderSpec
from pilotlight.contracts.manifest import GenerationCost, GenerationSpeed, Manifest
from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.generation.causal_model import CausalModel
from pilotlight.runtime import malloc, process_memory
from pilotlight.runtime.measurement_process import measure_in_new_process
from pilotlight.runtime.model_files import open_model_files
from pilotlight.runtime.session import MB_PER_VCPU, open_decoder_session
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.runtime")
PROMPT_TOKENS = 512
ANSWER_TOKENS = 32
ROUNDS = 3  # of which the median counts
MAX_THREADS = 6  # vCPUs of the largest function
MAX_SECONDS = 20.0  # for the rounds of one number of threads; at least one is made
TIMEOUT_SECONDS = 300.0  # for the process, after which it is ended


class GenerationMeasurementRequest(Struct, frozen=True):
    """Which graph to measure."""

    graph: str
    decoder: DecoderSpec


def measure_generation(graph: Path, decoder: DecoderSpec) -> GenerationCost | None:
    """Measure a graph in a new process; None, with a line in the log, if that fails or takes too long."""
    request = GenerationMeasurementRequest(str(graph.absolute()), decoder)
    what = f"What texts of {graph.name} cost"
    return measure_in_new_process("pilotlight.runtime.generation_cost", request, GenerationCost, TIMEOUT_SECONDS, what)


def measure_stored_generation(store: ObjectStore, manifest: Manifest) -> GenerationCost:
    """Fetch a version and measure it; `InvalidInputError` if that fails."""
    if manifest.decoder is None:
        raise InvalidInputError(f"{manifest.name}:{manifest.version} is a model for {manifest.task}, without tokens.")
    with open_model_files(store, manifest) as path, TemporaryDirectory(prefix="pilotlight-cost-") as folder:
        graph = Path(path)
        if graph.parent.name == "fd":  # in this process's memory, where no other finds it
            graph = Path(folder, "model.onnx")
            shutil.copyfile(path, graph)
        cost = measure_generation(graph, manifest.decoder)
    if cost is None:
        raise InvalidInputError(f"{manifest.name}:{manifest.version} cannot be measured: its graph does not run.")
    return cost


def measure_graph(request: GenerationMeasurementRequest) -> GenerationCost:
    """Measure a graph in this process, with one thread first, by which its memory is measured."""
    process_memory.reset_peak()
    before, _ = process_memory.measure_own_memory()
    with malloc.return_freed_memory():
        model = open_model(request, threads=1)
    session_bytes = max(0, process_memory.measure_own_memory()[0] - before)
    meter = SpeedMeter(request.decoder)
    alone = meter.measure(model, 1)
    peak_bytes = process_memory.peak_resident_bytes() - before
    cache_bytes = request.decoder.cache_bytes_per_token * (meter.prompt_tokens + ANSWER_TOKENS)
    del model
    speeds = [alone]
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    if threads > 1:
        speeds.append(meter.measure(open_model(request, threads), threads))
    return GenerationCost(
        prompt_tokens=meter.prompt_tokens,
        first_token_ms=round(1000 * meter.prompt_tokens / alone.prompt, 1),
        session_bytes=session_bytes,
        working_bytes=max(0, peak_bytes - session_bytes - cache_bytes),
        speeds=tuple(speeds),
    )


def open_model(request: GenerationMeasurementRequest, threads: int) -> CausalModel:
    """Open the graph as a function with so many vCPUs does."""
    return CausalModel(open_decoder_session(request.graph, threads * MB_PER_VCPU), request.decoder)


class SpeedMeter:
    """Measures how fast a model reads a prompt, and how fast it writes an answer."""

    def __init__(self, decoder: DecoderSpec, clock: Callable[[], float] = time.perf_counter) -> None:
        """Draw the prompt: 512 tokens, or what half of the context holds."""
        self.prompt_tokens = max(1, min(PROMPT_TOKENS, decoder.context_length // 2))
        self._answer_tokens = max(1, min(ANSWER_TOKENS, decoder.context_length - self.prompt_tokens - 1))
        self._prompt = np.random.default_rng(0).integers(0, decoder.vocabulary_size, self.prompt_tokens).tolist()
        self._clock = clock

    def measure(self, model: CausalModel, threads: int) -> GenerationSpeed:
        """Measure a few times after a short warm-up; the median counts."""
        model.prefill(model.create_cache(), self._prompt[:8])
        times, started = [self._time_once(model)], self._clock()
        while len(times) < ROUNDS and self._clock() - started < MAX_SECONDS / ROUNDS:
            times.append(self._time_once(model))
        return GenerationSpeed(
            threads,
            round(self.prompt_tokens / median(read for read, _ in times), 2),
            round(self._answer_tokens / median(written for _, written in times), 2),
        )

    def _time_once(self, model: CausalModel) -> tuple[float, float]:
        """Return the seconds for the prompt, and for the tokens behind it."""
        cache = model.create_cache(capacity=self.prompt_tokens + self._answer_tokens)
        began = self._clock()
        model.prefill(cache, self._prompt)
        read = self._clock()
        for token in self._prompt[: self._answer_tokens]:
            model.forward(cache, [[token]])
        return read - began, self._clock() - read


def main() -> None:
    """Read the request from standard input, measure, and write the cost to standard output."""
    request = decode_document(sys.stdin.buffer.read(), GenerationMeasurementRequest, "the request")
    sys.stdout.buffer.write(msgspec.json.encode(measure_graph(request)))


if __name__ == "__main__":
    try:
        main()
    except PilotlightError as exc:
        sys.exit(str(exc))
