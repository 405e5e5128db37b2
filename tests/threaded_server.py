"""Serve in a thread of this process: fakes over HTTP, for the time of a test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer

POLL_SECONDS = 0.02  # s between two looks for the end; the default of 0.5 is waited at the end of each test


@contextmanager
def serve_in_thread(server: BaseServer) -> Iterator[None]:
    """Serve while the context lasts; then end the thread and close the socket."""
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
