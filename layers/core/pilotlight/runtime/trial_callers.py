"""The callers of a trial: how often each one counts, and how much of a decision it can bring about by itself.

A header names nobody. Callers are told apart by what the gateway knows: an authenticated identity or an address.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from pilotlight.runtime.sequential_test import Credit

LOOPBACK = ("127.0.0.1", "::1")
MAX_CALLERS = 1024  # that are told apart; all others are taken for one
MAX_CALLER_STRATA = 8  # sizes of requests for which a caller's own times are kept
SLACK_REQUESTS = 5  # that a caller may count more often than the average one
HALVING_REQUESTS = 4096  # counted requests after which all counts are halved, so that old callers make room
UNLIMITED = 1e100  # not infinite, since evidence is divided by what a caller has added
TENANT_PART = 1 / 2  # of the evidence for a stop, on a logarithmic scale, that a tenant contributes at most
ANONYMOUS_PART = 1 / 4  # that an address contributes at most


class TrialCaller(Struct, frozen=True):
    """Who sends a request, by the gateway, and the end user for whom it is sent, by the caller."""

    identity: str = ""  # empty for a caller whom nobody has authenticated
    tenant: str = ""  # empty for the stack's own callers
    address: str = ""
    user: str = ""  # by the header, which anybody can write, or the subject of a token

    def is_own(self) -> bool:
        """Whether the caller belongs to the stack: authenticated and of no tenant, or on the machine itself.

        API Gateway has no caller on a loopback address; the local gateway has hardly any other.
        """
        return not self.tenant if self.identity else self.address in LOOPBACK

    def get_sticky_key(self) -> str | None:
        """Return the key that keeps an authenticated caller's user at one version of a split; None for all others."""
        return f"{self.tenant}\0{self.identity}\0{self.user}" if self.identity and self.user else None


class TypicalTime(Struct):
    """A running median of positive numbers that needs no memory (after Ma, Muthukrishnan and Sandler, 2013)."""

    ms: float = 0.0
    count: int = 0

    def add(self, ms: float) -> None:
        """Move towards `ms`, in smaller and smaller steps."""
        self.count = count = self.count + 1
        step = 1 + max(0.05, 0.5 / count)
        if count == 1:
            self.ms = max(ms, 1e-3)
        elif ms > self.ms:
            self.ms *= step
        else:
            self.ms /= step


@dataclass
class CallerAccount:
    """One caller's part in a trial."""

    credits: tuple[Credit, ...]  # by kind of evidence
    requests: float = 0.0  # that were counted, halved from time to time
    times: dict[int, TypicalTime] = field(default_factory=dict)  # of the caller's requests, by stratum

    def is_idle(self) -> bool:
        """Whether nothing is lost if the account is closed."""
        return self.requests < 1 and all(one.is_unused() for one in self.credits)


class CallerAccounts:
    """The accounts of a trial's callers in one environment."""

    def __init__(self, thresholds: Sequence[float]) -> None:
        """Keep accounts for tests that stop at these e-values."""
        self._unlimited = (UNLIMITED,) * len(thresholds)
        self._tenant_limits = tuple(one**TENANT_PART for one in thresholds)
        self._anonymous_limits = tuple(one**ANONYMOUS_PART for one in thresholds)
        self._own: dict[str, CallerAccount] = {}
        self._others: dict[str, CallerAccount] = {}
        self._other_requests = 0.0
        self._until_halving = HALVING_REQUESTS

    def __len__(self) -> int:
        return len(self._own) + len(self._others)

    def admit(self, caller: TrialCaller) -> CallerAccount | None:
        """Return the caller's account if the request counts, which depends on nothing that the request does.

        The stack's own callers always count. Others count as often as the average of them, and a little
        more, so that nobody drowns the rest by sending a lot.
        """
        if caller.is_own():
            return self._open_account(self._own, caller.identity, self._unlimited)
        if caller.identity:
            account = self._open_account(self._others, f"tenant {caller.tenant}", self._tenant_limits)
        else:
            account = self._open_account(self._others, get_network(caller.address), self._anonymous_limits)
        if account.requests > SLACK_REQUESTS + self._other_requests / len(self._others):
            return None
        account.requests += 1
        self._other_requests += 1
        self._until_halving -= 1
        if not self._until_halving:
            self._halve_counts()
        return account

    def _open_account(self, accounts: dict[str, CallerAccount], key: str, limits: Sequence[float]) -> CallerAccount:
        account = accounts.get(key)
        if account is None:
            if len(accounts) >= MAX_CALLERS:
                key, limits = "all others", self._anonymous_limits
                if key in accounts:
                    return accounts[key]
            account = accounts[key] = CallerAccount(tuple(Credit(limit) for limit in limits))
        return account

    def _halve_counts(self) -> None:
        self._until_halving = HALVING_REQUESTS
        for account in self._others.values():
            account.requests /= 2
        self._others = {key: account for key, account in self._others.items() if not account.is_idle()}
        self._other_requests = sum(account.requests for account in self._others.values())


def get_network(address: str) -> str:
    """Return what one subscriber has: an IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    from ipaddress import AddressValueError, IPv6Address  # takes 2 ms, which most calls do not need

    try:
        parsed = IPv6Address(address)
    except AddressValueError:
        return address
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
