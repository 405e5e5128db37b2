"""What a language model needs of a function by context length, and what its tokens cost by memory size."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from pilotlight.contracts.manifest import GenerationCost, GenerationSpeed, Manifest
from pilotlight.costs import prices
from pilotlight.errors import InvalidInputError
from pilotlight.registry.registry import Registry
from pilotlight.runtime.generation_cost import measure_generation, measure_stored_generation
from pilotlight.runtime.generation_sizing import SpeedCurve, build_generation_sizing
from tests import fakes
from tests.language_model_versions import publish_scripted

COST = GenerationCost(
    prompt_tokens=512,
    first_token_ms=2560.0,
    session_bytes=200_000_000,
    working_bytes=100_000_000,
    speeds=(GenerationSpeed(1, 200.0, 50.0), GenerationSpeed(2, 300.0, 60.0)),
)


@pytest.fixture
def manifest(registry: Registry) -> Manifest:
    """A version with sizes like SmolLM2's."""
    found = publish_scripted(registry)
    assert found.decoder is not None
    decoder = replace(found.decoder, layers=30, kv_heads=3, head_size=64, context_length=8192)
    return replace(found, decoder=decoder, generation_cost=COST)


def test_memory_grows_with_the_context(manifest: Manifest) -> None:
    report = build_generation_sizing(manifest)
    assert [each.tokens for each in report.contexts] == [1024, 2048, 4096, 8192]
    assert report.cache_bytes_per_token == 2 * 30 * 3 * 64 * 4
    assert [each.cache_bytes for each in report.contexts] == [46_080 * each.tokens for each in report.contexts]
    sizes = [each.memory_mb for each in report.contexts]
    assert sizes == sorted(size for size in sizes if size is not None)
    assert report.source == "measured"
    assert report.warnings == ()


def test_a_price_is_that_of_the_seconds_which_tokens_take(manifest: Manifest) -> None:
    speed = next(each for each in build_generation_sizing(manifest).speeds if each.memory_mb == 1769)
    assert (speed.prompt_tokens_per_second, speed.answer_tokens_per_second) == (200.0, 50.0)
    assert speed.first_token_seconds == 2.56
    usd_per_second = 1769 / 1024 * prices.LAMBDA_GB_SECOND["x86_64"]
    assert speed.usd_per_million_prompt_tokens == pytest.approx(1e6 * usd_per_second / 200, abs=1e-3)
    assert speed.usd_per_million_answer_tokens == pytest.approx(1e6 * usd_per_second / 50, abs=1e-3)


def test_speeds_follow_what_was_measured_and_fall_in_proportion_below_one_vcpu() -> None:
    curve = SpeedCurve(COST.speeds)
    assert curve.estimate(2 * 1769) == pytest.approx((300.0, 60.0))
    assert curve.estimate(4 * 1769) == pytest.approx((450.0, 72.0))
    prompt, answer = curve.estimate(885)
    assert prompt == pytest.approx(100.0, rel=0.01)
    assert answer == pytest.approx(25.0, rel=0.01)


def test_a_second_thread_that_was_slower_tells_nothing() -> None:
    busy = SpeedCurve((GenerationSpeed(1, 200.0, 50.0), GenerationSpeed(2, 150.0, 20.0)))
    assert busy.estimate(2 * 1769) == SpeedCurve((GenerationSpeed(1, 200.0, 50.0),)).estimate(2 * 1769)


def test_without_a_measurement_the_bytes_tell(manifest: Manifest) -> None:
    report = build_generation_sizing(replace(manifest, generation_cost=None))
    assert report.source == "formula"
    assert report.speeds


def test_a_context_that_no_function_holds_is_told(manifest: Manifest) -> None:
    assert manifest.decoder is not None
    long = replace(manifest, decoder=replace(manifest.decoder, context_length=1_000_000))
    (warning,) = build_generation_sizing(long).warnings
    assert warning.startswith("No function holds its context of 1,000,000 tokens; 131,072 fit into 10,240 MB.")


def test_a_model_that_no_function_holds_is_told(manifest: Manifest) -> None:
    large = replace(manifest, generation_cost=replace(COST, session_bytes=20_000_000_000))
    report = build_generation_sizing(large)
    assert report.warnings == ("No function is large enough: Lambda ends at 10,240 MB.",)
    assert report.speeds == ()


def test_another_model_has_no_tokens(registry: Registry) -> None:
    with pytest.raises(InvalidInputError, match="double:1 is a model for tensor, without tokens"):
        build_generation_sizing(fakes.publish(registry))


def test_a_process_measures_a_decoder(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from tests.tiny_decoders import write_tiny_decoder

    tiny = write_tiny_decoder(tmp_path, ("int8",))
    cost = measure_generation(tiny.graphs["int8"], tiny.spec)
    assert cost is not None
    assert cost.prompt_tokens == tiny.spec.context_length // 2
    assert cost.session_bytes > 0
    assert cost.speeds[0].threads == 1
    assert all(speed.prompt > 0 and speed.answer > 0 for speed in cost.speeds)


def test_a_graph_that_is_none_is_not_measured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    pytest.importorskip("onnx")
    from tests.tiny_decoders import write_tiny_decoder

    tiny = write_tiny_decoder(tmp_path)
    (tmp_path / "broken.onnx").write_bytes(b"rot")
    assert measure_generation(tmp_path / "broken.onnx", tiny.spec) is None
    assert "What texts of broken.onnx cost is not measured" in caplog.text


def test_a_stored_version_is_measured(registry: Registry) -> None:
    assert measure_stored_generation(registry.store, publish_scripted(registry)).speeds
