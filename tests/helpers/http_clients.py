"""Servers of the tests, and clients that speak HTTP byte by byte."""

import socket
import threading
import time
from contextlib import contextmanager

from headstart.serve.options import ServerOptions
from headstart.serve.run import listen, make_server


@contextmanager
def running(app, options=None):
    """Serve a guarded application in a thread, and yield its port."""
    options = options or ServerOptions(port=0)
    listener = listen(options)
    server = make_server(app, options)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def read_all(connection):
    """Everything until the server closes the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def next_answer(connection):
    """Status, headers and body of the next answer on a connection that stays open."""
    received = b""
    while True:
        _, end, body = received.partition(b"\r\n\r\n")
        if end and len(body) >= int(parse(received)[1]["content-length"]):
            return parse(received)
        part = connection.recv(65536)
        assert part, received
        received += part


def answer(connection):
    """Status, headers and body of the answer after which the server closes a connection."""
    with connection:
        return parse(read_all(connection))


def exchange(port, method="GET", path="/", body=b"", **headers):
    """Send a request as it is given, and return status, headers by lower-case name, and body."""
    named = {"Host": f"127.0.0.1:{port}", "Connection": "close"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    if (body or method == "POST") and "Transfer-Encoding" not in named:
        named.setdefault("Content-Length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in named.items() if v is not None), "", ""]
    connection = connect(port)
    connection.sendall("\r\n".join(lines).encode("latin-1") + body)
    return answer(connection)


def parse(response):
    head, _, body = response.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return int(first.split()[1]), headers, body
