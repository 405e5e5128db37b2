"""Errors as the unmodified openai client shows them beside tritonclient.

openai prints only `error.message`, tritonclient only an `error` that is a text: no body suits both. The routes here are
V2's, so tritonclient prints the sentence; openai's exceptions have the right class, and the sentence as their `body`.
"""

from collections.abc import Iterator

import openai
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


@pytest.fixture(params=["/v2", "/nowhere"])
def base(url: str, request: pytest.FixtureRequest) -> str:
    """A path that the handler answers, and one that the gateway itself refuses."""
    return f"{url}{request.param}"


@pytest.fixture
def client(base: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base, api_key="none", max_retries=0) as client:
        yield client


def test_openai_has_the_sentence(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("nothing")
    assert raised.value.status_code == 404
    assert str(raised.value.body).startswith(("There is no model 'nothing'; GET", "There is no such route; GET"))


def test_openai_has_the_sentence_of_a_bad_request(url: str) -> None:
    with (
        openai.OpenAI(base_url=f"{url}/v2", api_key="none", max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as raised,
    ):
        client.post("/models/digits/infer", body={"input": "x"}, cast_to=object)
    assert "not an infer request" in str(raised.value.body)


def test_tritonclient_shows_the_same(base: str) -> None:
    with (
        triton.InferenceServerClient(base.removeprefix("http://").removesuffix("/v2")) as client,
        pytest.raises(InferenceServerException, match=r"\[404\] There is no (model 'nothing'|such route); GET"),
    ):
        client.get_model_metadata("nothing")
