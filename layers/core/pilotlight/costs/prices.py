"""Prices of AWS in USD, read from the one file that holds them, with its date and the source of each number.

`prices.json` beside this module is of region us-east-1, without savings plans; other regions are a few percent dearer.
It is JSON because every cold start reads it, which takes 0.05 ms; tomllib takes longer than that to import.
"""

import os
from math import ceil

import msgspec
from msgspec import Struct

PRICES_FILE = os.path.join(os.path.dirname(__file__), "prices.json")  # noqa: PTH118, PTH120 - 3 ms less than pathlib
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}
MB_PER_GB = 1024  # in Lambda's bill
MS_PER_S = 1000


class Price(Struct, frozen=True):
    """USD per unit: that of the first tier, and the tiers, each up to so many units a month; None for the last.

    `free` units a month cost an account nothing, for ever; only the bill of an idle stack takes them off.
    """

    usd: float
    per: str
    source: str
    tiers: tuple[tuple[float | None, float], ...] = ()
    free: float = 0.0

    def compute_cost(self, units: float) -> float:
        """Compute what so many units in a month cost."""
        total, below = 0.0, 0.0
        for end, usd in self.tiers or ((None, self.usd),):
            inside = max(0.0, (units if end is None else min(units, end)) - below)
            total, below = total + inside * usd, below + inside
        return total


class PriceList(Struct, frozen=True):
    """The whole file."""

    as_of: str
    region: str
    currency: str
    sources: dict[str, str]
    prices: dict[str, Price]
    free_tier: str  # the source of the units that are free


with open(PRICES_FILE, "rb") as file:  # noqa: PTH123 - as above
    PRICE_LIST = msgspec.json.decode(file.read(), type=PriceList)

AS_OF = PRICE_LIST.as_of
LAMBDA_GB_SECOND = {name: PRICE_LIST.prices[f"lambda_{name}"].usd for name in ("x86_64", "arm64")}
LAMBDA_REQUEST = PRICE_LIST.prices["lambda_request"].usd
REST_API_REQUEST = PRICE_LIST.prices["rest_api"].usd


def to_lambda_architecture(machine: str) -> str:
    """Map `platform.machine()` to Lambda's architecture: x86_64, the dearer one, if Lambda does not have it."""
    return ARCHITECTURES.get(machine.lower(), "x86_64")


def round_to_billed_ms(seconds: float) -> int:
    """Round a duration up to whole milliseconds, as Lambda bills it."""
    return max(1, ceil(seconds * MS_PER_S))


def compute_gb_seconds(memory_mb: int, milliseconds: float) -> float:
    """Compute the GB-seconds that are billed for a duration on a function of so much memory."""
    return memory_mb / MB_PER_GB * milliseconds / MS_PER_S


def compute_invocation_usd(memory_mb: int, milliseconds: float, architecture: str) -> float:
    """Compute the price of one invocation: its request and its duration."""
    return LAMBDA_REQUEST + compute_gb_seconds(memory_mb, milliseconds) * LAMBDA_GB_SECOND[architecture]
