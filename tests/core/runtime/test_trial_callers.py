"""Who counts how much in a trial: by what the gateway knows, and never by a header."""

import pytest

from pilotlight.runtime.trial_callers import (
    HALVING_REQUESTS,
    MAX_CALLERS,
    SLACK_REQUESTS,
    UNLIMITED,
    CallerAccounts,
    TrialCaller,
    TypicalTime,
    get_network,
)

THRESHOLDS = (3e5, 3e5, 3e5)


def test_a_header_makes_no_caller() -> None:
    accounts = CallerAccounts(THRESHOLDS)
    for number in range(SLACK_REQUESTS):
        accounts.admit(TrialCaller(address="192.0.2.1", user=str(number)))
    assert len(accounts) == 1


@pytest.mark.parametrize(
    ("caller", "part"),
    [
        (TrialCaller(address="192.0.2.1", user="me"), 1 / 4),
        (TrialCaller(identity="key", tenant="acme", address="192.0.2.1"), 1 / 2),
        (TrialCaller(identity="key", address="192.0.2.1"), None),
        (TrialCaller(address="127.0.0.1"), None),
        (TrialCaller(identity="key", tenant="acme", address="127.0.0.1"), 1 / 2),
    ],
)
def test_addresses_and_tenants_bring_about_no_stop_alone(caller: TrialCaller, part: float | None) -> None:
    account = CallerAccounts(THRESHOLDS).admit(caller)
    assert account is not None
    limit = UNLIMITED if part is None else pytest.approx(3e5**part)
    assert [credit.limit for credit in account.credits] == [limit] * 3


def test_the_keys_of_a_tenant_are_one_caller() -> None:
    accounts = CallerAccounts(THRESHOLDS)
    assert accounts.admit(TrialCaller("one", "acme")) is accounts.admit(TrialCaller("two", "acme"))


def test_who_sends_a_lot_does_not_count_more_than_others() -> None:
    accounts = CallerAccounts(THRESHOLDS)
    for number in range(10):
        accounts.admit(TrialCaller(address=f"192.0.2.{number}"))
    counted = sum(accounts.admit(TrialCaller(address="198.51.100.1")) is not None for _ in range(1000))
    assert counted <= SLACK_REQUESTS + 3


def test_who_is_alone_always_counts() -> None:
    accounts = CallerAccounts(THRESHOLDS)
    assert all(accounts.admit(TrialCaller(address="192.0.2.1")) for _ in range(2 * HALVING_REQUESTS))


def test_accounts_take_bounded_memory() -> None:
    accounts = CallerAccounts(THRESHOLDS)
    for number in range(3 * MAX_CALLERS):
        accounts.admit(TrialCaller(address=f"10.0.{number // 250}.{number % 250}"))
        accounts.admit(TrialCaller(identity=str(number)))
    assert len(accounts) <= 2 * (MAX_CALLERS + 1)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_a_subscriber_has_a_whole_ipv6_network(address: str, network: str) -> None:
    assert get_network(address) == network


def test_the_typical_time_is_about_the_median_whatever_the_tail() -> None:
    typical = TypicalTime()
    for number in range(500):
        typical.add((9.0, 10.0, 11.0, 5000.0, 10.0)[number % 5])
    assert 8.5 < typical.ms < 11.5
