"""Limits and deadlines, against a running server."""

import asyncio
import socket
import threading
import time
import tracemalloc
from dataclasses import replace

import pytest
from helpers.http_clients import answer, connect, exchange, next_answer, parse, read_all, running
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from headstart.errors import OptionError
from headstart.serve.guards import guarded
from headstart.serve.limits import read_body
from headstart.serve.options import ServerOptions, host_name
from headstart.serve.run import listen

OPTIONS = ServerOptions(
    port=0, max_body=100_000, max_requests=2, max_connections=8, header_seconds=0.5, body_seconds=0.8
)


class Answers:
    """An application whose route /wait answers when it is released."""

    def __init__(self):
        self.waiting, self.released, self.cancelled = threading.Semaphore(0), threading.Event(), 0

    async def wait(self, request):
        self.waiting.release()
        try:
            while not self.released.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return PlainTextResponse("waited")

    async def echo(self, request):
        return PlainTextResponse(str(len(await request.body())))

    def app(self, options):
        routes = [Route("/wait", self.wait), Route("/echo", self.echo, methods=["POST"]), Route("/health", self.health)]
        return guarded(Starlette(routes=routes), options, unlimited={"/health"})

    async def health(self, request):
        return PlainTextResponse("well")


@pytest.fixture
def answers():
    return Answers()


@pytest.fixture
def port(answers):
    with running(answers.app(OPTIONS), OPTIONS) as port:
        yield port
        answers.released.set()


def chunked(*parts):
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def is_cut_off(connection, data, pause):
    """Whether the server closes a connection on which ``data`` comes again and again."""
    start = time.monotonic()
    try:
        while time.monotonic() < start + 20:
            connection.sendall(data)
            time.sleep(pause)
    except OSError:
        return True
    return False


def request(port, path="/wait"):
    connection = connect(port)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    return connection


def test_a_body_may_have_as_many_bytes_as_the_limit_and_no_more(port):
    assert exchange(port, "POST", "/echo", b"x" * 100_000)[::2] == (200, b"100000")
    assert exchange(port, "POST", "/echo", b"x" * 100_001)[0] == 413
    assert exchange(port, "POST", "/echo", Content_Length=str(10**15))[0] == 413


def test_a_chunked_body_is_counted_as_it_comes(port):
    body = [b"x" * 50_000, b"x" * 50_000]
    assert exchange(port, "POST", "/echo", chunked(*body), Transfer_Encoding="chunked")[::2] == (200, b"100000")
    assert exchange(port, "POST", "/echo", chunked(*body, b"x"), Transfer_Encoding="chunked")[0] == 413


def test_a_body_without_an_end_is_refused_and_then_cut_off(port):
    with connect(port) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert is_cut_off(connection, chunked(b"x" * 10_000)[:-5], 0.001)
    assert exchange(port, path="/health")[0] == 200


def test_all_bodies_together_are_bounded(answers):
    options = replace(OPTIONS, max_held=150_000)
    with running(answers.app(options), options) as port, connect(port) as slow:
        slow.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n" + b"x" * 89_000)
        time.sleep(0.2)
        status, headers, _ = exchange(port, "POST", "/echo", b"x" * 70_000)
        assert (status, headers["retry-after"]) == (503, "1")
        slow.sendall(b"x" * 1000)
        assert next_answer(slow)[0] == 200
        assert exchange(port, "POST", "/echo", b"x" * 70_000)[0] == 200


def test_requests_beyond_the_limit_are_told_when_to_come_again(answers, port):
    first = [request(port) for _ in range(2)]
    for _ in first:
        assert answers.waiting.acquire(timeout=20)
    status, headers, _ = exchange(port, path="/wait")
    assert (status, headers["retry-after"]) == (503, "1")
    assert exchange(port, path="/health")[0] == 200  # never among the busy
    answers.released.set()
    assert [answer(connection)[0] for connection in first] == [200, 200]
    assert exchange(port, path="/wait")[0] == 200


def test_a_request_is_given_up_after_its_time(answers):
    options = replace(OPTIONS, answer_seconds=0.2)
    with running(answers.app(options), options) as port:
        status, headers, _ = exchange(port, path="/wait")
        assert (status, headers["retry-after"]) == (503, "1")
        assert answers.cancelled == 1


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: lo", b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"])
def test_headers_that_do_not_come_end_the_connection(port, sent):
    with connect(port) as connection:
        connection.sendall(sent)
        rest = read_all(connection)
    assert rest == b"" if not sent else parse(rest)[0] == 408


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n",
    ],
)
def test_a_trickle_of_bytes_extends_no_deadline(port, head):
    with connect(port) as connection:
        connection.sendall(head)
        assert is_cut_off(connection, b"x", 0.05)


def test_a_second_request_on_a_connection_has_its_own_deadline(port):
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(port) as connection:
        for _ in range(4):  # together longer than one deadline
            connection.sendall(whole)
            assert next_answer(connection)[0] == 200
            time.sleep(0.3)
        connection.sendall(whole[:20])
        assert answer(connection)[0] == 408


def test_idle_connections_make_room_for_new_ones(port):
    idle = [connect(port) for _ in range(40)]
    assert exchange(port, path="/health")[0] == 200
    for connection in idle:
        connection.close()


def test_connections_that_are_answered_are_not_closed_for_new_ones(answers):
    options = replace(OPTIONS, max_requests=100)
    with running(answers.app(options), options) as port:
        busy = [request(port) for _ in range(8)]
        for _ in busy:
            assert answers.waiting.acquire(timeout=20)
        status, headers, _ = exchange(port, path="/health")
        assert (status, headers["retry-after"]) == (503, "1")
        answers.released.set()
        assert [answer(connection)[0] for connection in busy] == [200] * 8
        assert exchange(port, path="/health")[0] == 200


def test_stopping_does_not_wait_for_a_body_that_does_not_come(answers, monkeypatch, caplog):
    """It waited as long as it may, then cancelled the request with 500 and a traceback."""
    monkeypatch.setattr("headstart.serve.protocol.CLOSING_SECONDS", 0.3)
    options = replace(OPTIONS, body_seconds=60, stop_seconds=4)
    with running(answers.app(options), options) as port:
        connection = connect(port)
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\nxyz")
        assert exchange(port, path="/health")[0] == 200
        time.sleep(0.2)
    assert answer(connection)[0] == 408
    assert "Traceback" not in caplog.text


def test_stopping_waits_for_what_was_begun(answers):
    with running(answers.app(OPTIONS), OPTIONS) as port:
        connection = request(port)
        assert answers.waiting.acquire(timeout=20)
        threading.Timer(0.5, answers.released.set).start()
    assert answer(connection)[::2] == (200, b"waited")
    with pytest.raises(OSError):
        connect(port)


def test_a_port_in_use_is_an_error_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OptionError, match="Address already in use; give another --port"):
            listen(ServerOptions(port=taken.getsockname()[1]))


def test_a_body_is_in_memory_once_while_it_is_answered():
    size, held = 8 * 2**20, []

    async def app(scope, receive, send):
        message = await receive()
        assert len(message["body"]) == size
        held.append(tracemalloc.get_traced_memory()[0])

    async def main():
        parts = [{"type": "http.request", "body": bytes(2**20), "more_body": i < 7} for i in range(8)]

        async def receive():
            return parts.pop(0)

        before = tracemalloc.get_traced_memory()[0] - size  # without the parts that are to come
        await read_body(app, 2 * size, 4 * size)({"type": "http", "headers": []}, receive, None)
        return held[0] - before

    tracemalloc.start()
    try:
        assert asyncio.run(main()) < 1.2 * size
    finally:
        tracemalloc.stop()


def test_the_host_may_be_an_address_in_capitals():
    options = ServerOptions(host="FD00::1", insecure=True)
    assert host_name("[fd00::1]:8000") in options.host_names
