"""A gateway over the functions of `stack/`, once for each runtime client."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.local.environment import AWS_CLIENT, OWN_CLIENT
from pilotlight.local.gateway import Gateway
from pilotlight.local.template import GatewayLimits

STACK = Path(__file__).parent / "stack" / "template.yaml"
# Sizes are the real ones; only the waiting is shorter. Unit tests see to the small limits.
LIMITS = GatewayLimits(init_s=1.0, integration_s=20.0)

no_aws_client = pytest.mark.skipif(
    importlib.util.find_spec(AWS_CLIENT) is None, reason="awslambdaric is for Linux only"
)


@pytest.fixture
def stack() -> Path:
    return STACK


@pytest.fixture(scope="session", params=[pytest.param(AWS_CLIENT, marks=no_aws_client), OWN_CLIENT])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    gateway = Gateway(STACK, port=0, workers=2, client=request.param, limits=LIMITS, environment={"COLOUR": "blue"})
    with gateway.serve_in_background() as address:
        yield address
