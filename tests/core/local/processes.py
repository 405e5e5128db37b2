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


def wait_for_connections(url: str, count: int) -> None:
    """Wait until the gateway has accepted as many connections, and has had the time to read their requests."""
    port = urlsplit(url).port

    def are_accepted() -> bool:
        accepted = [one for one in psutil.net_connections("tcp4") if one.pid is not None]
        ours = [one for one in accepted if one.laddr[1:] == (port,) and one.status == psutil.CONN_ESTABLISHED]
        return len(ours) >= count

    eventually(are_accepted)
    time.sleep(READ_SECONDS)
