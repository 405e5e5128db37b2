"""MLflow's own scoring client and LangChain, which bring forty packages and more: skipped where they are missing.

`make test-heavy` has them.
"""

from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest

import pilotlight
from tests import fakes

IMAGES, LABELS = fakes.digits()


def test_mlflow_scoring_client(url: str) -> None:
    client_module = pytest.importorskip("mlflow.pyfunc.scoring_server.client")
    address = urlsplit(url)
    client = client_module.ScoringServerClient(address.hostname, address.port)
    client.ping()
    assert client.get_version() == pilotlight.__version__
    with pytest.raises(Exception, match=r"error code 400, response: .*Which model\? The store has"):
        client.invoke(np.zeros((1, 64)))


@pytest.mark.parametrize("form", ["frame", "array", "records"])
def test_bodies_of_mlflows_client(url: str, form: str) -> None:
    utilities = pytest.importorskip("mlflow.utils.proto_json_utils")
    requests = pytest.importorskip("requests")
    rows = IMAGES[:5].reshape(5, 64)
    data = {
        "frame": pd.DataFrame(rows, columns=[f"pixel_{place // 8}_{place % 8}" for place in range(64)]),
        "array": IMAGES[:5],
        "records": pd.DataFrame(rows),
    }[form]
    body = utilities.dump_input_data(data)
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{url}/invocations?model=digits", data=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert np.argmax(answer.json()["predictions"], axis=1).tolist() == LABELS[:5]


def test_langchain_shows_that_there_is_no_such_model(url: str) -> None:
    langchain = pytest.importorskip("langchain_openai")
    options = {"base_url": f"{url}/v1", "api_key": "none", "model": "m", "max_retries": 0}
    embeddings = langchain.OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    chat = langchain.ChatOpenAI(**options)
    for ask in (chat.invoke, embeddings.embed_query):
        with pytest.raises(Exception, match=r"Error code: 404 - .*There is no model 'm'"):
            ask("hello")
