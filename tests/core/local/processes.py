"""The processes behind a gateway, as tests ask for them."""

import time
from urllib.parse import urlsplit

import psutil

from tests.core.local.http_client import get
from tests.fakes import eventually

READ_SECONDS = 0.1  # s within which a request is read once its connection is accepted


def pid_of(url: str) -> int:
    """The environment that answers."""
    return int(get(url, "/act/pid").json["pid"])


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for_connections(url: str, count: int, gateway: int | None = None) -> None:
    """Wait until the gateway, of that process or this one, has accepted so many connections, and could read them."""
    process, port = psutil.Process(gateway), urlsplit(url).port

    def are_accepted() -> bool:
        accepted = [one for one in process.net_connections("tcp4") if one.status == psutil.CONN_ESTABLISHED]
        return sum(one.laddr[1:] == (port,) for one in accepted) >= count

    eventually(are_accepted)
    time.sleep(READ_SECONDS)
