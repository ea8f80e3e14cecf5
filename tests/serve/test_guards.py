"""Guards, each against a running server."""

import base64
import json
from dataclasses import replace

import pytest
from helpers.http_clients import exchange, running
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from headstart.errors import OptionError
from headstart.serve.guards import MAX_HEADERS, SECURITY_HEADERS, guarded
from headstart.serve.options import ServerOptions
from headstart.serve.static import page_paths, page_routes

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
PAGE = {"index.html": b"<!doctype html>", "scripts/app.js": b"start()"}
TOKEN = "correct horse battery"
OPTIONS = ServerOptions(port=0)


async def echo(request):
    return PlainTextResponse(f"{request.method} {len(await request.body())}")


def application(options):
    app = Starlette(routes=[Route("/echo", echo, methods=METHODS), Route("/health", echo), *page_routes(PAGE)])
    return guarded(app, options, unguarded={"/health"}, unlimited={"/health"})


@pytest.fixture(scope="module")
def port():
    with running(application(OPTIONS)) as port:
        yield port


@pytest.mark.parametrize("path", ["/", "/echo", "/health", "/scripts/app.js", "/nothing", "//", "/..%2f", "/%00"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD"])
def test_every_route_refuses_a_foreign_host(port, path, method):
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8000",
        "",
        "[::1",
        "localhost:80:80",
    ):
        assert exchange(port, method, path, Host=host)[0] == 403, host


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:80"])
def test_loopback_names_are_answered_with_any_port(port, host):
    assert exchange(port, path="/echo", Host=host)[0] == 200


def test_a_missing_host_is_refused(port):
    status, _, _ = exchange(port, Host=None)
    assert status in (400, 403)


def test_the_refusal_says_how_to_allow_a_host(port):
    error = json.loads(exchange(port, Host="models.example:80")[2])["error"]
    assert "'models.example:80'" in error
    assert "--allowed-hosts" in error
    with running(application(replace(OPTIONS, allowed_hosts=("models.example",)))) as other:
        assert exchange(other, path="/echo", Host="models.example:80")[0] == 200
        assert exchange(other, path="/echo", Host="other.example")[0] == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # no browser
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),  # another port of localhost
        ({"Sec_Fetch_Site": "same-origin", "Origin": "http://evil.example"}, 200),  # browsers never send this pair
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Origin": "http://localhost:1234", "Host": "localhost:1234"}, 200),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_pages_of_other_sites_change_nothing(port, method, headers, status):
    assert exchange(port, method, "/echo", **headers)[0] == status
    assert exchange(port, "GET", "/echo", **headers)[0] == 200  # whose answer no other site can read


def test_no_site_may_read_answers_unless_it_is_named(port):
    preflight = {"Origin": "https://a.example", "Access_Control_Request_Method": "POST"}
    assert "access-control-allow-origin" not in exchange(port, "GET", "/echo", Origin="https://a.example")[1]
    assert "access-control-allow-origin" not in exchange(port, "OPTIONS", "/echo", **preflight)[1]
    named = replace(OPTIONS, cors_origins=("https://a.example",), token=TOKEN)
    with running(application(named)) as other:
        bearer = {"Authorization": f"Bearer {TOKEN}", "Sec_Fetch_Site": "cross-site"}
        status, headers, _ = exchange(other, "OPTIONS", "/echo", **preflight)
        assert (status, headers["access-control-allow-origin"]) == (200, "https://a.example")
        status, headers, _ = exchange(other, "POST", "/echo", Origin="https://a.example", **bearer)
        assert (status, headers["access-control-allow-origin"]) == (200, "https://a.example")
        assert exchange(other, "POST", "/echo", Origin="https://b.example", **bearer)[0] == 403
        assert exchange(other, "POST", "/echo", Origin="https://a.example", Host="evil.example")[0] == 401


def basic(token):
    return f"Basic {base64.b64encode(f'anyone:{token}'.encode()).decode()}"


@pytest.mark.parametrize("path", ["/", "/echo", "/scripts/app.js", "/nothing"])
def test_the_token_takes_the_place_of_the_host_check(path):
    with running(application(replace(OPTIONS, token=TOKEN))) as port:
        known = exchange(port, path=path, Authorization=f"Bearer {TOKEN}", Host="anything.example")[0]
        assert known == (404 if path == "/nothing" else 200)
        assert exchange(port, path=path, Authorization=basic(TOKEN))[0] == known
        for wrong in (
            None,
            "",
            "Bearer",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            "Basic !",
            basic(""),
            "Bearer \xff",
        ):
            assert exchange(port, path=path, Authorization=wrong)[0] == 401
        assert exchange(port, path="/health", Host="anything.example")[0] == 200
        assert exchange(port, path=path)[1]["www-authenticate"] == "Bearer"
        assert exchange(port, path=path, Sec_Fetch_Mode="navigate")[1]["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize("path", ["/", "/echo", "/nothing"])
def test_every_response_has_the_security_headers(port, path):
    for host in (f"127.0.0.1:{port}", "evil.example"):
        _, headers, _ = exchange(port, path=path, Host=host)
        for name, value in SECURITY_HEADERS.items():
            expected = "no-cache" if (path, name) == ("/", b"cache-control") and "evil" not in host else value.decode()
            assert headers[name.decode()] == expected
        assert "server" not in headers


def test_headers_of_64_kilobytes_are_refused(port):
    assert exchange(port, path="/echo", X="x" * 65536)[0] in (400, 431)
    assert exchange(port, path="/echo?" + "x" * 65536)[0] in (400, 414, 431)
    assert exchange(port, path="/echo", X="x" * (MAX_HEADERS // 2))[0] == 200


@pytest.mark.parametrize(
    "path", ["/../pyproject.toml", "/..%2fapp.js", "/scripts/..%2f..%2f", "/scripts/app.js%00", "/%2e%2e/", "//scripts"]
)
def test_no_path_leads_out_of_the_page(port, path):
    assert exchange(port, path=path)[0] == 404


def test_the_page_is_served_with_its_types(port):
    status, headers, body = exchange(port, path="/")
    assert (status, headers["content-type"], body) == (200, "text/html; charset=utf-8", b"<!doctype html>")
    status, headers, body = exchange(port, path="/scripts/app.js")
    assert (status, headers["content-type"], body) == (200, "text/javascript; charset=utf-8", b"start()")
    assert exchange(port, path="/scripts/app.js", If_None_Match=headers["etag"])[0] == 304
    assert exchange(port, "POST", "/scripts/app.js")[0] == 405
    assert page_paths(PAGE) == {"/", "/scripts/app.js"}


@pytest.mark.parametrize(
    "values",
    [
        {"host": "0.0.0.0"},
        {"host": "192.168.1.5"},
        {"host": "example.org"},
        {"host": "::"},
        {"token": "short"},
        {"token": "ä" * 20},
        {"allowed_hosts": ("*",)},
        {"allowed_hosts": ("Example.org",)},
        {"allowed_hosts": ("example.org:80",)},
        {"cors_origins": ("*",)},
        {"cors_origins": ("example.org",)},
        {"cors_origins": ("https://example.org/",)},
    ],
)
def test_unsafe_options_are_errors(values):
    with pytest.raises(OptionError):
        ServerOptions(**values)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::"])
def test_beyond_loopback_it_takes_a_token_or_a_word(host):
    assert ServerOptions(host, token=TOKEN).host == host
    assert ServerOptions(host, insecure=True).host_names >= {"localhost", "127.0.0.1", "[::1]"}
