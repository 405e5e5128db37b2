"""An environment that is killed for its memory while others of the same function answer: only its request fails."""

import http.client
import threading
from collections import Counter
from urllib.parse import urlsplit

from pilotlight.local.gateway import Gateway
from pilotlight.local.template import GatewayLimits
from tests.load.faults.lifetimes import STACK
from tests.load.faults.row import Row, judge

CALLERS = 3
LIMITS = GatewayLimits(init_s=10.0, integration_s=20.0)


def run(times: int) -> list[Row]:
    """Have an environment killed so many times."""
    good: Counter[int] = Counter()
    over = threading.Event()
    with Gateway(STACK, port=0, workers=CALLERS + 1, limits=LIMITS).serve_in_background() as url:

        def call() -> None:
            while not over.is_set():
                good[ask(url, "/act/sleep?s=0.02")] += 1

        threads = [threading.Thread(target=call) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        killed = Counter(ask(url, "/act/hog") for _ in range(times))
        over.set()
        for thread in threads:
            thread.join()
    wrong = [] if set(good) == {200} else [f"others got {dict(good)}"]
    wrong += [] if set(killed) == {502} else [f"the greedy ones got {dict(killed)}"]
    seen = f"{killed[502]} requests got 502, {good[200]:,} of others got 200"
    return [judge(f"{times} environments killed for memory", "502 for that request alone; others go on", seen, wrong)]


def ask(url: str, path: str) -> int:
    """The status of a request over a connection of its own."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
