"""Examples of request bodies, by the name of their schema in the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

SEVEN = [  # a handwritten digit of 8 x 8 pixels, row by row, 0 to 16
    0, 0, 7, 8, 13, 16, 15, 1,
    0, 0, 7, 7, 4, 11, 12, 0,
    0, 0, 0, 0, 8, 13, 1, 0,
    0, 4, 8, 8, 15, 15, 6, 0,
    0, 2, 11, 15, 15, 4, 0, 0,
    0, 0, 0, 16, 5, 0, 0, 0,
    0, 0, 9, 15, 1, 0, 0, 0,
    0, 0, 13, 5, 0, 0, 0, 0,
]  # fmt: skip
BODY_EXAMPLES: Mapping[str, dict[str, Any]] = {
    "InferRequest": {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": SEVEN}]},
    "ChatCompletionBody": {
        "model": "chat",
        "messages": [{"role": "user", "content": "What is a pilot light?"}],
        "max_completion_tokens": 100,
        "temperature": 0.2,
    },
    "CompletionBody": {"model": "chat", "prompt": "A pilot light is", "max_tokens": 20},
    "ResponsesBody": {
        "model": "chat",
        "instructions": "Answer in one sentence.",
        "input": "What is a pilot light?",
        "max_output_tokens": 100,
    },
    "MessagesBody": {
        "model": "chat",
        "max_tokens": 100,
        "system": "Answer in one sentence.",
        "messages": [{"role": "user", "content": "What is a pilot light?"}],
    },
    "CountTokensBody": {"model": "chat", "messages": [{"role": "user", "content": "What is a pilot light?"}]},
    "EmbeddingsBody": {"model": "minilm", "input": ["A pilot light", "A small flame"]},
    "RerankBody": {
        "model": "minilm",
        "query": "What lights the burner?",
        "documents": ["A pilot light does.", "Gas is measured in cubic metres."],
        "top_n": 1,
    },
    "DecisionsBody": {
        "model": "chat",
        "input": "The flame has gone out.",
        "questions": [{"type": "predicate", "name": "burns", "instructions": "Does the flame burn?"}],
    },
    "GenerateBody": {"text_input": "A pilot light is", "parameters": {"max_tokens": 20, "temperature": 0.2}},
    "TokenizeBody": {"model": "chat", "prompt": "A pilot light"},
    "DetokenizeBody": {"model": "chat", "tokens": [49, 9250]},
    "NewVersionBody": {
        "manifest": {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 3]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 3]}],
            "variants": {"fp32": {"graph": "model.onnx"}},
            "serve": "fp32",
        },
        "files": [
            {
                "path": "model.onnx",
                "bytes": 149,
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            }
        ],
    },
    "PromoteBody": {"version": "3"},
    "CanaryBody": {"version": "3", "percent": 10, "bake": "1h"},
    "TrafficSplitBody": {"shares": [{"version": "2", "percent": 20}, {"version": "3", "percent": 30}]},
    "ShadowBody": {"version": "3", "percent": 10},
    "RollbackBody": {"why": "version 3 confuses 1 and 7"},
    "ApprovalBody": {"state": "approved", "why": "its report was reviewed"},
    "PruneBody": {"keep": 5, "dry_run": True},
    "CreateUploadBody": {"filename": "monday.jsonl", "bytes": 25_000_000},
    "CompleteUploadBody": {
        "part_ids": ["part_5d41402abc4b2a76b9719d911017c592", "part_7d793037a0760186574b0282f2f435e7"]
    },
    "CreateBatchBody": {
        "input_file_id": "file-9f86d081884c7d659a2feaa0c55ad015",
        "endpoint": "/v2/models/digits/infer",
        "completion_window": "24h",
    },
    "StartTrainingBody": {"recipe": "digits", "set": ["epochs=5"], "run": "digits-5-epochs"},
    "CancelTrainingBody": {"why": "the loss no longer falls"},
}
