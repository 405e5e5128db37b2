"""`pilotlight cost`, and that what callers were told is what tenants are billed: through the gateway, over HTTP."""

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import boto3
import pytest

from pilotlight.api_keys.key_store import KeyStore
from pilotlight.cli import serve
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.cli.conftest import Run
from tests.core.local.http_client import Reply, ask

ROOT = Path(__file__).parents[3]
LOAD = ("cost", "--rps", "20", "--ms", "20", "--memory", "1769")
BODY = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}'
PAUSE_S = 0.3  # longer than calls are held to share a line


def test_a_month_is_shown_line_by_line_with_bars(run: Run) -> None:
    code, out, _ = run(*LOAD, "--arch", "arm64", "--cold-share", "0.01", "--init-ms", "1300")
    assert code == 0
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    assert "183.96" in rows["API Gateway, REST"]
    assert rows["API Gateway, REST"].count("█") == 40 > rows["Lambda, time"].count("█") > 0
    assert "15.74" in rows["Lambda, cold starts"]
    assert "together" in rows


def test_the_same_in_json(run: Run) -> None:
    code, out, _ = run(*LOAD, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["usd"] == pytest.approx(sum(line["usd"] for line in found["lines"]))
    assert found["load"] == {
        "rps": 20, "ms": 20, "memory_mb": 1769, "cold_share": 0, "init_ms": 0, "architecture": "x86_64",
    }  # fmt: skip
    assert set(found) == {"load", "lines", "usd", "usd_per_million", "requests", "prices_as_of", "region"}
    assert set(found["lines"][0]) == {"what", "usd", "grows"}
    assert found["prices_as_of"] == "2026-09-19"


def test_a_month_without_a_call_is_that_of_the_template(run: Run) -> None:
    code, out, _ = run("cost", "--idle")
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    assert code == 0
    assert "657,000" in rows["SQS, polls of idle queues"]
    assert 0.5 < float(rows["together"].split("│")[4]) < 1
    assert "CloudWatch, composite alarms" not in rows


def test_the_page_shows_what_the_command_prints(run: Run) -> None:
    """Infra/docs/deploy.md has the bill of the templates as they are."""
    page = (ROOT / "infra" / "docs" / "deploy.md").read_text()
    shown = page.partition("$ pilotlight cost --idle\n")[2].partition("\n```")[0]
    assert shown.splitlines() == [line.rstrip() for line in run("cost", "--idle")[1].splitlines()]


def test_the_page_says_what_other_parameters_cost(run: Run) -> None:
    page = " ".join((ROOT / "infra" / "docs" / "deploy.md").read_text().split())
    bills = {
        level: json.loads(run("cost", "--idle", "--json", "--parameter", level)[1])
        for level in ("MonitoringLevel=full", "SnapStart=PublishedVersions")
    }
    snapshot = next(line for line in bills["SnapStart=PublishedVersions"]["lines"] if "snapshot" in line["what"])
    assert f"`MonitoringLevel=full` a month is {bills['MonitoringLevel=full']['usd']:.2f} dollars" in page
    assert f"with SnapStart {snapshot['usd']:.2f} more" in page


def test_parameters_change_the_month_without_a_call(run: Run) -> None:
    code, out, _ = run("cost", "--idle", "--parameter", "MonitoringLevel=full", "--json")
    found = json.loads(out)
    units = {line["what"]: line["units"] for line in found["lines"]}
    assert code == 0
    assert units["CloudWatch, composite alarms"] == 1
    assert found["usd"] == pytest.approx(sum(line["usd"] for line in found["lines"]))
    assert found["usd"] - found["usd_after_free_tier"] > 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--parameter", "MonitoringLevel=full"), "--parameter and --stack-name are for --idle"),
        (("--idle", "--parameter", "full"), "'full' is no parameter; write --parameter Name=value"),
        (("--idle", "--parameter", "Level=full"), "has no parameter Level; see its Parameters"),
    ],
)
def test_wrong_words_about_an_idle_stack(run: Run, words: tuple[str, ...], says: str) -> None:
    code, out, err = run("cost", *words)
    assert (code, out) == (2, "")
    assert says in err


def test_the_parameters_of_a_deployed_stack_are_taken(run: Run, aws_environment: dict[str, str]) -> None:
    """What is given with --parameter goes before them; there is no cost of a stack that does not exist."""
    text = json.dumps(
        {
            "Parameters": {"MonitoringLevel": {"Type": "String"}, "Architecture": {"Type": "String"}},
            "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        }
    )
    cloud = boto3.client("cloudformation")
    deployed = [
        {"ParameterKey": "MonitoringLevel", "ParameterValue": "full"},
        {"ParameterKey": "Architecture", "ParameterValue": "arm64"},
    ]
    cloud.create_stack(StackName="watched", TemplateBody=text, Parameters=deployed)
    bills = [
        json.loads(run("cost", "--idle", "--stack-name", "watched", "--json", *more)[1])
        for more in ((), ("--parameter", "MonitoringLevel=basic"))
    ]
    cloud.delete_stack(StackName="watched")
    assert ["CloudWatch, composite alarms" in json.dumps(bill) for bill in bills] == [True, False]
    assert all("1.33334e-5" in json.dumps(bill) or "1.33334e-05" in json.dumps(bill) for bill in bills)
    code, _, err = run("cost", "--idle", "--stack-name", "nobody")
    assert code == 1
    assert "There is no stack 'nobody' in this account and region" in err


def test_a_models_needs_come_from_its_fit(run: Run, store: str) -> None:
    fakes.publish_digits(Registry(open_store(store)))
    fit = json.loads(run("fit", "digits", "--json")[1])
    load = json.loads(run("cost", "digits", "--rps", "1", "--json")[1])["load"]
    assert (load["memory_mb"], load["ms"]) == (fit["memory_mb"], fit["warm_ms"])
    assert json.loads(run("cost", "digits", "--rps", "1", "--ms", "7", "--json")[1])["load"]["ms"] == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Say --rps"),
        (("--rps", "1"), "Say --rps"),
        ((*LOAD[1:], "--cold-share", "7"), "a part of 1"),
        ((*LOAD[1:], "--arch", "fax"), "fax"),
        ((*LOAD[1:], "--edge", "rest"), "No such option"),
        (("--from-logs", "no/such"), "cannot be read"),
        (("nobody", "--rps", "1"), "nobody"),
    ],
)
def test_what_is_asked_wrongly_is_said(words: tuple[str, ...], said: str, run: Run) -> None:
    code, out, err = run("cost", *words)
    assert code in (1, 2)
    assert (out, said in err) == ("", True)


def test_help_has_examples(run: Run) -> None:
    code, out, _ = run("cost", "--help")
    assert code == 0
    assert "pilotlight cost --rps 20 --ms 20 --memory 1769" in out


def asked(url: str, keys: Mapping[str, str]) -> dict[str, list[Reply]]:
    """Some calls of two tenants to two versions, one of which is wrong; what they were answered."""
    answers: dict[str, list[Reply]] = defaultdict(list)
    for call in range(30):
        tenant = "north" if call % 3 else "south"
        headers = {"x-api-key": keys[tenant], "x-pilotlight-version": "2" if call % 5 == 0 else "1"}
        answers[tenant].append(ask(url, "POST", "/v2/models/double/infer", b"{" if call == 7 else BODY, headers))
    time.sleep(PAUSE_S)
    answers["south"].append(
        ask(url, "GET", "/v2", headers={"x-api-key": keys["south"], "x-correlation-id": "order-17"})
    )
    return answers


def test_tenants_are_billed_what_their_answers_said(
    run: Run, store: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    registry = Registry(open_store(store))
    fakes.publish(registry)
    fakes.publish(registry)
    key_store = KeyStore(open_store(store))
    keys = {
        tenant: key_store.create_key(tenant, ("infer",), actor="test", tenant=f"{tenant}-inc").key
        for tenant in ("north", "south")
    }
    capfd.readouterr()
    variables = {"PILOTLIGHT_STORE": store}
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment=variables, parameters={"Auth": "keys"})
    with gateway.serve_in_background() as url:
        answers = asked(url, keys)
    log = tmp_path / "calls.log"
    log.write_text(capfd.readouterr().err)
    assert answers["south"][-1].headers["x-correlation-id"] == "order-17"
    assert '"correlation_id":"order-17"' in log.read_text()
    hidden = (*(key.split("_", 2)[2] for key in keys.values()), '"data"', '"inputs"')  # secrets and bodies
    assert not [word for word in hidden if word in log.read_text()]

    code, out, err = run("cost", "--from-logs", str(log), "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    told = [sum(Decimal(each.headers["x-pilotlight-usd"]) for each in replies) for replies in answers.values()]
    billed: dict[str, Decimal] = defaultdict(Decimal)
    for account in found["accounts"]:
        billed[account["tenant"]] += Decimal(account["usd"])
    assert billed.keys() == {"north-inc", "south-inc"}
    assert sorted(billed.values()) == sorted(told)
    assert (Decimal(found["usd"]), found["calls"]) == (sum(told), 31)
    met = {(each["model"], each["version"]) for each in found["accounts"]}
    assert met == {("double", "1"), ("double", "2"), ("-", "-")}
    assert sum(each["failed"] for each in found["accounts"]) == 1
    assert f"{sum(told):f}" in run("cost", "--from-logs", str(log))[1]


@pytest.mark.parametrize(("calls", "said"), [(True, None), (False, "-1")])
def test_a_gateway_logs_calls_where_it_is_asked_to(calls: bool, said: str | None) -> None:
    gateway = serve.build_gateway("s", host="127.0.0.1", port=0, workers=1, log_calls=calls)
    assert gateway.environment.get("PILOTLIGHT_CALL_SECONDS") == said
