"""What hostile clients send, to ``headstart serve`` as a process. Limits with short times are in test_limits.py."""

import io
import json
import os
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.http_clients import answer, connect, exchange, next_answer, read_all
from PIL import Image

from .test_cli import process

JPEG = {"Content_Type": "image/jpeg"}
MIB = 2**20
MANY = int(os.environ.get("HEADSTART_REQUESTS", "5000"))  # 50000 take half an hour on two cores


@pytest.fixture(scope="module")
def hostile(model_folder):
    """A server as it is by default, but for the size of a body."""
    with process(model_folder, "--max-body", "2", "--workers", "2") as (started, port):
        yield started, port


@pytest.fixture
def port(hostile):
    return hostile[1]


def memory(started, field="VmRSS"):
    """MiB that a process holds now, or at most so far (VmHWM)."""
    status = Path(f"/proc/{started.pid}/status")
    if not status.exists():
        pytest.skip("needs /proc")
    (line,) = [line for line in status.read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


def png(width, height):
    """A PNG of one colour of any size, as small as it can be."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)]
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)  # a bit for each pixel
    data = b"".join([*rows, packer.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def every_route(port):
    described = json.loads(exchange(port, path="/openapi.json")[2])["paths"]
    routes = [(method.upper(), path) for path, methods in described.items() for method in methods]
    return [
        *routes,
        ("GET", "/"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
        ("DELETE", "/predict"),
    ]


def test_no_route_answers_to_a_foreign_host(port):
    assert len(every_route(port)) > 12
    for method, path in every_route(port):
        assert exchange(port, method, path, Host="evil.example")[0] == 403, path


def test_no_route_is_changed_by_pages_of_other_sites(port, files):
    for headers in ({"Origin": "null"}, {"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        for method, path in every_route(port):
            if method == "POST":
                assert exchange(port, method, path, files[0], **JPEG, **headers)[0] == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert exchange(port, "POST", "/predict", files[0], Content_Type=kind)[0] == 415


@pytest.mark.parametrize(
    "path", ["/..%2f..%2fetc%2fpasswd", "/../etc/passwd", "/%00", "/index.html%00.png", "/predict/%00"]
)
def test_no_path_leads_anywhere(port, path):
    assert exchange(port, "POST" if "predict" in path else "GET", path, **JPEG)[0] == 404


def test_a_header_of_64_kilobytes_is_refused(port):
    assert exchange(port, X="x" * 65536)[0] in (400, 431)


def test_a_chunked_body_past_the_limit_is_refused_without_being_kept(hostile):
    started, port = hostile
    before = memory(started)
    connection = connect(port)
    head = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    connection.sendall(head)
    chunk = b"%x\r\n%s\r\n" % (MIB, bytes(MIB))
    for _ in range(200):
        connection.sendall(chunk)
    connection.sendall(b"0\r\n\r\n")
    connection.shutdown(1)
    assert answer(connection)[0] == 413
    assert memory(started, "VmHWM") < before + 64


def test_bombs_are_refused_by_their_headers(port):
    for sides in ((30_000, 30_000), (8000, 5001), (40_000_001, 1)):
        status, _, body = exchange(port, "POST", "/predict", png(*sides), **JPEG)
        assert status == 422
        assert b"limit of" in body
    stream = io.BytesIO()
    frames = [Image.new("P", (600, 600), i) for i in range(40)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    assert exchange(port, "POST", "/predict", stream.getvalue(), **JPEG)[0] == 200  # the first frame alone


def test_bombs_within_the_limit_hold_up_neither_health_nor_memory(hostile, files):
    started, port = hostile
    before, bomb = memory(started), png(8000, 4999)
    with ThreadPoolExecutor(6) as pool:
        bombs = [pool.submit(exchange, port, "POST", "/predict", bomb, **JPEG) for _ in range(6)]
        health = []
        while not all(request.done() for request in bombs):
            health.append(exchange(port, path="/health")[0])
    assert len(health) > 5
    assert set(health) == {200}
    assert [request.result()[0] for request in bombs] == [200] * 6
    assert exchange(port, "POST", "/predict", files[0], **JPEG)[0] == 200
    # One image in full size, 3 bytes a pixel, and what its decoder holds; six at once would be 700 MiB.
    assert memory(started, "VmHWM") < before + 400


def test_a_thousand_idle_connections_keep_nobody_out(port, files):
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1200:
        pytest.skip(f"needs 1,200 open files; {soft} are allowed")
    idle = [connect(port) for _ in range(1000)]
    try:
        for _ in range(5):
            assert exchange(port, "POST", "/predict", files[0], **JPEG)[0] == 200
    finally:
        for connection in idle:
            connection.close()


def test_half_requests_keep_nobody_out(port, files):
    halves = [connect(port) for _ in range(600)]
    try:
        for i, connection in enumerate(halves):
            connection.sendall(
                [b"POST /predict HT", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"][i % 2]
            )
        assert exchange(port, "POST", "/predict", files[0], **JPEG)[0] == 200
    finally:
        for connection in halves:
            connection.close()


@pytest.mark.slow
def test_a_byte_now_and_then_ends_with_the_deadline(port):
    """The deadlines that are the default: 10 seconds for headers."""
    connection = connect(port)
    start = time.monotonic()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
    try:
        while time.monotonic() < start + 60:
            connection.sendall(b"x")
            time.sleep(0.5)
    except OSError:
        pass
    assert 8 < time.monotonic() - start < 50
    read_all(connection)
    connection.close()


def test_noise_is_answered_and_ends(port):
    for noise in (
        os.urandom(5000),
        b"\r\n" * 5000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01",
    ):
        connection = connect(port)
        connection.sendall(noise)
        connection.shutdown(1)
        received = read_all(connection)
        connection.close()
        assert received == b"" or received.split()[1] in (b"400", b"403", b"408")
    assert exchange(port, path="/health")[0] == 200


def ask_often(port, files, count):
    """Ask ``count`` times on connections that are kept, by four clients."""

    def ask(_):
        with connect(port) as connection:
            for i in range(count // 4):
                file = files[i % len(files)]
                head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: "
                connection.sendall(f"{head}{len(file)}\r\n\r\n".encode() + file)
                assert next_answer(connection)[0] == 200

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))


@pytest.mark.parametrize("count", [400, pytest.param(MANY, marks=pytest.mark.slow)])
def test_memory_stays_flat_over_many_requests(model_folder, files, count):
    with process(model_folder, "--workers", "2") as (started, port):
        ask_often(port, files, max(400, count // 10))
        before = memory(started)
        ask_often(port, files, count)
        assert memory(started) < before + 16
