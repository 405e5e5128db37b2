"""MLflow's scoring protocol in the exact requests of its own clients, over HTTP.

mlflow itself is no light test client: mlflow-skinny brings forty packages, and its scoring client pandas and scipy on
top. What that client and mlflow's docs send is sent here as it is; the client itself passes too (infra/decisions/0056).
"""

import json

import httpx2
import numpy as np
import pytest

import pilotlight
from tests import fakes

IMAGES, LABELS = fakes.digits()
ROWS = IMAGES[:5].reshape(5, 64).tolist()
COLUMNS = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
HEADERS = {"Content-Type": "application/json", "X-Pilotlight-Model": "digits"}
BODIES = {
    "dataframe_split": {"columns": COLUMNS, "data": ROWS, "index": list(range(5))},
    "dataframe_records": [dict(zip(COLUMNS, row, strict=True)) for row in ROWS],
    "instances": IMAGES[:5].tolist(),
    "inputs": {"image": IMAGES[:5].tolist()},
}


def predicted(answer: httpx2.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    found: list[int] = np.argmax(answer.json()["predictions"], axis=1).tolist()
    return found


@pytest.mark.parametrize("base", ["", "/prod"])
@pytest.mark.parametrize("form", BODIES)
def test_every_form_of_json(url: str, base: str, form: str) -> None:
    body = json.dumps({form: BODIES[form]})
    assert predicted(httpx2.post(f"{url}{base}/invocations", content=body, headers=HEADERS)) == LABELS[:5]


def test_csv(url: str) -> None:
    lines = [",".join(COLUMNS), *(",".join(map(str, row)) for row in ROWS)]
    headers = {"Content-Type": "text/csv; charset=utf-8"}
    answer = httpx2.post(f"{url}/invocations?model=digits:2", content="\n".join(lines), headers=headers)
    assert predicted(answer) == LABELS[:5]
    assert answer.headers["x-pilotlight-model"] == "digits:2"


def test_what_is_missing_in_a_data_frame_is_nan(url: str) -> None:
    """As `json.dumps` of mlflow's own client writes it: MLflow's server reads a bare NaN."""
    content = json.dumps({"inputs": [[1.0, float("nan"), 0.0]]})
    answer = httpx2.post(
        f"{url}/invocations?model=logarithm", content=content, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()) == (200, {"predictions": [[0, None, None]]})


def test_health_and_version(url: str) -> None:
    assert [httpx2.get(f"{url}{path}").status_code for path in ("/ping", "/health")] == [200, 200]
    assert httpx2.get(f"{url}/version").text == pilotlight.__version__


@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "hint"),
    [
        ("{}", HEADERS, 400, "BAD_REQUEST", "exactly one of"),
        ("{", HEADERS, 400, "BAD_REQUEST", "not JSON"),
        ('{"inputs": [], "instances": []}', HEADERS, 400, "BAD_REQUEST", "it has instances and inputs"),
        ('{"inputs": [[1]]}', HEADERS, 400, "BAD_REQUEST", "'image' has shape"),
        ("{}", {**HEADERS, "Content-Type": "text/html"}, 415, "BAD_REQUEST", "use application/json or text/csv"),
        ("{}", {**HEADERS, "Content-Type": "text/csv; charset=ebcdic"}, 415, "BAD_REQUEST", "use utf-8"),
        ("{}", {**HEADERS, "X-Pilotlight-Model": "nothing"}, 404, "RESOURCE_DOES_NOT_EXIST", "no model 'nothing'"),
        ('{"inputs": []}', {"Content-Type": "application/json"}, 400, "BAD_REQUEST", "name one of digits, echo-"),
    ],
)
def test_errors(url: str, body: str, headers: dict[str, str], status: int, code: str, hint: str) -> None:
    answer = httpx2.post(f"{url}/invocations", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert hint in answer.json()["message"]
