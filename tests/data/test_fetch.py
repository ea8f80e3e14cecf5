"""``--fetch``: files behind https addresses, from servers that redirect, lie, stall and hide in private networks."""

import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest
from helpers.photos import write_photos

from headstart.data import ReadOptions, fetch, open_dataset
from headstart.data.fetch import Fetcher, is_public
from headstart.errors import DataError, ImageError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate of 127.0.0.1 and of pictures.example, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make a certificate")
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", path.with_suffix(".key"), "-out", path.with_suffix(".crt"), "-days", "2"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:pictures.example"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.with_suffix(".key").read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture
def trust(certificate):
    return ssl.create_default_context(cafile=certificate)


@contextmanager
def serving(certificate, respond):
    """Run an https server whose requests are answered by ``respond(handler)``; yield its address and the paths."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            try:
                respond(self)
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        server.handle_error = lambda *_: None
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def answer(handler, body=b"an image", status=200, length=None, **headers):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def only_loopback(address):
    return address == "127.0.0.1"


def test_a_file_is_fetched_with_its_query(certificate, trust):
    with serving(certificate, answer) as (address, asked):
        assert fetch.fetch(f"{address}/a b/ü.jpg?size=2&x=%20", is_allowed=only_loopback, context=trust) == b"an image"
        assert asked == ["/a%20b/%C3%BC.jpg?size=2&x=%20"]


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("255.255.255.255", "240.0.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2002:0a00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
        *("2001:db8::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_that_are(address):
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"])
def test_hosts_of_this_machine_are_refused_before_a_connection(host, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    with pytest.raises(ImageError, match=r"not on the public internet|is not known"):
        fetch.fetch(f"https://{host}/a.jpg")


def test_a_host_with_one_private_address_is_refused(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    with pytest.raises(ImageError, match=r"rebinding\.example is 10\.0\.0\.1"):
        fetch.fetch("https://rebinding.example/a.jpg")


def test_the_connection_goes_to_the_address_that_was_checked(certificate, trust, monkeypatch):
    """A name that is resolved again gives another address (DNS rebinding)."""
    resolved = []

    def resolve(host, port, *_, **__):
        if host == "127.0.0.1":  # create_connection's own look at the address
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        resolved.append(host)
        address = "127.0.0.1" if len(resolved) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with serving(certificate, answer) as (address, _):
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        url = address.replace("127.0.0.1", "pictures.example")
        assert fetch.fetch(f"{url}/a.jpg", is_allowed=only_loopback, context=trust) == b"an image"
    assert resolved == ["pictures.example"]


def test_the_certificate_must_be_that_of_the_host(certificate, trust, monkeypatch):
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: real("127.0.0.1", *a, **k))
    with serving(certificate, answer) as (address, asked):
        url = address.replace("127.0.0.1", "other.example")
        with pytest.raises(ImageError, match=r"certificate"):
            fetch.fetch(f"{url}/a.jpg", is_allowed=only_loopback, context=trust)
        with pytest.raises(ImageError, match="certificate"):
            fetch.fetch(f"{address}/a.jpg", is_allowed=only_loopback)
        assert asked == []


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("https://127.0.0.2/a.jpg", "127.0.0.2, which is not on the public internet"),
        ("https://[::1]/a.jpg", r"not on the public internet|not known"),
        ("http://127.0.0.1/a.jpg", "is not an https address"),
        ("file:///etc/passwd", "is not an https address"),
        ("https://[::bad", "Cannot be fetched"),
        ("/again", "more than 5 redirects"),
    ],
)
def test_redirects_are_checked_and_counted(certificate, trust, location, message):
    with (
        serving(certificate, lambda handler: answer(handler, b"", 302, Location=location)) as (address, asked),
        pytest.raises(ImageError, match=message),
    ):
        fetch.fetch(f"{address}/a.jpg", is_allowed=only_loopback, context=trust)
    assert len(asked) == (6 if location == "/again" else 1)


def test_a_redirect_to_an_allowed_address_is_followed(certificate, trust):
    def respond(handler):
        if handler.path == "/b.jpg":
            answer(handler)
        else:
            answer(handler, b"", 307, Location="b.jpg")

    with serving(certificate, respond) as (address, asked):
        assert fetch.fetch(f"{address}/a.jpg", is_allowed=only_loopback, context=trust) == b"an image"
        assert asked == ["/a.jpg", "/b.jpg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 10**12}, "more bytes than the limit"),
        ({"length": 100}, "8 of 100 bytes arrived"),
        ({"body": b"x" * 5000}, "more bytes than the limit of 1,000"),
        ({"status": 404}, "the server answered 404"),
        ({"status": 500}, "the server answered 500"),
    ],
)
def test_lengths_that_lie_and_errors(certificate, trust, options, message):
    with (
        serving(certificate, lambda handler: answer(handler, **options)) as (address, _),
        pytest.raises(ImageError, match=message) as error_info,
    ):
        fetch.fetch(f"{address}/a.jpg", is_allowed=only_loopback, context=trust, limit=1000)
    assert "\n" not in str(error_info.value)


def test_a_body_without_a_length_is_bounded_as_well(certificate, trust):
    def respond(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b"x" * 65536)

    with (
        serving(certificate, respond) as (address, _),
        pytest.raises(ImageError, match="more bytes than the limit of 100,000"),
    ):
        fetch.fetch(f"{address}/a.jpg", is_allowed=only_loopback, context=trust, limit=100_000)


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_sends_byte_by_byte_is_left_in_time(certificate, trust, part):
    stop = threading.Event()

    def respond(handler):
        if part == "body":
            handler.send_response(200)
            handler.end_headers()
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Header: ")
        while not stop.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    with serving(certificate, respond) as (address, _):
        start = time.monotonic()
        with pytest.raises(ImageError, match="it took more than 1 seconds"):
            fetch.fetch(f"{address}/a.jpg", is_allowed=only_loopback, context=trust, seconds=1)
        stop.set()
    assert time.monotonic() - start < 30  # it would never end


def test_a_server_that_never_shakes_hands_is_left_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/a.jpg"
        with pytest.raises(ImageError, match="Cannot be fetched"):
            fetch.fetch(url, is_allowed=only_loopback, seconds=1)


@pytest.mark.parametrize(
    "url", ["http://example.org/a.jpg", "ftp://x/a.jpg", "https://", "https://x:99999/a", "https:a"]
)
def test_other_addresses_are_refused(url):
    with pytest.raises(ImageError, match="is not an https address"):
        fetch.fetch(url)


def test_a_file_is_fetched_once_and_a_host_that_is_away_given_up(monkeypatch):
    asked = []

    def fake(url):
        asked.append(url)
        if "away" in url:
            raise fetch._NoConnection("Cannot be fetched: refused.")
        return url.encode()

    monkeypatch.setattr(fetch, "fetch", fake)
    fetcher = Fetcher()
    for url in ("https://x/1", "https://x/2", "https://x/1", "https://x/2"):
        assert fetcher.read(url) == url.encode()
    assert asked == ["https://x/1", "https://x/2"]
    for i in range(6):
        with pytest.raises(ImageError, match="refused" if i < 3 else "could not be reached 3 times"):
            fetcher.read(f"https://away/{i}")
    assert len(asked) == 5


def test_a_table_of_addresses(tmp_path, monkeypatch):
    (tmp_path / "here.jpg").write_bytes(b"here")
    rows = ["https://x.example/1?f=jpg,a", "HTTPS://x.example/2.jpg,b", "http://x.example/3.jpg,a", "here.jpg,a"]
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *rows]))
    monkeypatch.setattr(fetch, "fetch", lambda url: url.encode())
    dataset = open_dataset(tmp_path / "t.csv", ReadOptions(fetch=True))
    assert [(item.path, item.label, dataset.read(i)) for i, item in enumerate(dataset.items)] == [
        ("https://x.example/1?f=jpg", "a", b"https://x.example/1?f=jpg"),
        ("HTTPS://x.example/2.jpg", "b", b"HTTPS://x.example/2.jpg"),
        ("here.jpg", "a", b"here"),
    ]
    assert dataset.skip_counts == {"address that is not https": 1}
    monkeypatch.setattr(fetch, "fetch", lambda _: pytest.fail("fetched"))
    closed = open_dataset(tmp_path / "t.csv")
    assert closed.skip_counts == {"address of a file elsewhere": 3}
    assert "; to read https addresses, give --fetch." in closed.notes[0]
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *rows[:3]]))
    with pytest.raises(DataError, match="give --fetch"):
        open_dataset(tmp_path / "t.csv")


def test_the_fix_list_names_addresses(tmp_path, monkeypatch):
    from headstart.check import check_dataset, write_table

    photos = write_photos(tmp_path / "photos", 4)
    contents = {f"https://x.example/{i}": path.read_bytes() for i, path in enumerate(sorted(photos.rglob("*.jpg")))}
    rows = [f"{url},{'disc' if i < 4 else 'stripes'}" for i, url in enumerate(contents)]
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *rows]))
    monkeypatch.setattr(fetch, "fetch", contents.__getitem__)
    dataset = open_dataset(tmp_path / "t.csv", ReadOptions(fetch=True))
    result = check_dataset(dataset)
    write_table(dataset, result.findings, result.groups, tmp_path / "fixed.csv")
    fixed = open_dataset(tmp_path / "fixed.csv", ReadOptions(fetch=True))
    assert {(item.path, item.label) for item in fixed.items} == {(item.path, item.label) for item in dataset.items}
