from pilotlight.api.call_cost import CostMeter
from pilotlight.api.request_context import RequestContext


def test_the_first_call_pays_for_the_init() -> None:
    bill = CostMeter(2048, {})
    bill._init_seconds = 2.0
    first, second = (bill.measure_call(RequestContext()).to_headers(RequestContext()) for _ in range(2))
    assert (first["x-pilotlight-cold"], second["x-pilotlight-cold"]) == ("true", "false")
    assert int(first["x-pilotlight-billed-ms"]) >= 2000
    assert float(first["x-pilotlight-gb-seconds"]) >= 4
    assert float(first["x-pilotlight-usd"]) > float(second["x-pilotlight-usd"]) > 2e-7


def test_an_init_that_aws_bills_otherwise_is_left_out() -> None:
    assert CostMeter(2048, {"AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"})._init_seconds == 0
    assert CostMeter(2048, {"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"})._init_seconds > 0
