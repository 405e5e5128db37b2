"""The processes behind a gateway, as tests ask for them."""

import psutil

from tests.core.local.http_client import get


def pid_of(url: str) -> int:
    """The environment that answers."""
    return int(get(url, "/act/pid").json["pid"])


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
