"""An S3 server for tests, with a door before it that counts requests and can spoil them."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote
from wsgiref.types import StartResponse, WSGIEnvironment

from moto.server import ThreadedMotoServer

KEY, SECRET = "AKIATESTONLY", "a-secret-that-nobody-may-see"


@dataclass
class Request:
    """One request as the door saw it."""

    method: str
    path: str
    query: str
    range: str
    sent_bytes: int = 0

    @property
    def kind(self) -> str:
        """The method, or LIST."""
        return "LIST" if self.method == "GET" and "list-type=2" in self.query else self.method


# What to do with a request instead of serving it; None lets it pass.
Answer = Callable[[StartResponse], Iterable[bytes]]
Spoil = Callable[[Request], Answer | None]


@dataclass
class Server:
    """A running server; `requests` are those since `counting` began."""

    url: str
    requests: list[Request] = field(default_factory=list)
    spoil: Spoil | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def counting(self) -> Iterator[list[Request]]:
        """Collect the requests of the body."""
        self.requests = found = []
        yield found
        self.requests = []

    @contextmanager
    def spoiling(self, spoil: Spoil) -> Iterator[None]:
        """Ask `spoil` about every request of the body."""
        self.spoil = spoil
        try:
            yield
        finally:
            self.spoil = None


def kinds(requests: Iterable[Request]) -> Counter[str]:
    """How many requests of each kind."""
    return Counter(request.kind for request in requests)


@contextmanager
def running() -> Iterator[Server]:
    """A server on a free port of 127.0.0.1, for the time of the body."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    server = Server(f"http://{host}:{port}")
    inner = moto._server.app

    def door(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        request = Request(
            environ["REQUEST_METHOD"],
            unquote(environ["PATH_INFO"]),
            environ.get("QUERY_STRING", ""),
            environ.get("HTTP_RANGE", ""),
        )
        with server.lock:
            server.requests.append(request)
            answer = server.spoil(request) if server.spoil else None
        if answer is None:
            return _counted(inner(environ, start), request)
        return _half(inner(environ, start)) if answer is CUT else answer(start)

    moto._server.app = door
    try:
        yield server
    finally:
        moto.stop()


def _counted(body: Iterable[bytes], request: Request) -> Iterator[bytes]:
    for chunk in body:
        request.sent_bytes += len(chunk)
        yield chunk


def _half(body: Iterable[bytes]) -> list[bytes]:
    whole = b"".join(body)
    return [whole[: len(whole) // 2]]


def error(status: str, code: str, message: str = "as the test wants it") -> Answer:
    """An answer as S3 gives it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()

    def answer(start: StartResponse) -> Iterable[bytes]:
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    return answer


def CUT(start: StartResponse) -> Iterable[bytes]:  # noqa: N802 - a name to know it by
    """The right answer, of which only half the body comes before the connection ends."""
    raise NotImplementedError


def times(count: int, spoil: Spoil) -> Spoil:
    """Spoil only the first requests that `spoil` would."""
    left = [count]

    def some(request: Request) -> Answer | None:
        answer: Any = spoil(request) if left[0] else None
        left[0] -= answer is not None
        return answer

    return some
