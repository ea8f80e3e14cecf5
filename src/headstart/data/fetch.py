"""Files behind https addresses that a table names: never from a private network, and bounded in size and time.

The host is resolved once, every address of it is checked, and the connection goes to one of those: a second resolution
could give another. Redirects are checked in the same way. Proxies are not used, since a proxy would resolve the host.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import tempfile
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from typing import IO
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from headstart import __version__
from headstart.data.reading import error_reason
from headstart.errors import ImageError
from headstart.images.decoding import MAX_BYTES

REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5
MAX_SECONDS = 60.0  # for one file, from the first connection to the last byte
MAX_FETCHED = 16 * 2**30  # bytes of all files of a dataset
MAX_FAILURES = 3  # of connections to a host, before it is given up
CHUNK = 2**16
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
SAFE = "/%:=&?~+!$,;'@()*[]"  # characters that are not quoted in a path or a query

IsAllowed = Callable[[str], bool]


class _NoConnection(ImageError):
    """A host cannot be reached, or does not send."""


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet, also where it holds an IPv4 address.

    >>> is_public("93.184.215.14"), is_public("10.0.0.1"), is_public("::ffff:127.0.0.1"), is_public("169.254.169.254")
    (True, False, False, False)
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.teredo is not None:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_link_local or ip.is_unspecified)


class Fetcher:
    """Fetches the files of a dataset, each once: they are kept in an unnamed temporary file as long as it lives.

    Threads wait for each other. A host that cannot be reached ``MAX_FAILURES`` times is given up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[str, tuple[int, int]] = {}
        self._failures: Counter[str] = Counter()
        self._store: IO[bytes] = tempfile.TemporaryFile(prefix="headstart-")  # noqa: SIM115  # it lives as long as this
        weakref.finalize(self, self._store.close)

    def read(self, url: str) -> bytes:
        """Return the bytes of a file. Raises ImageError."""
        with self._lock:
            if url in self._places:
                offset, size = self._places[url]
                self._store.seek(offset)
                return self._store.read(size)
            host = urlsplit(url).netloc
            if self._failures[host] >= MAX_FAILURES:
                raise ImageError(f"{host} could not be reached {MAX_FAILURES} times; not tried again.")
            try:
                data = fetch(url)
            except _NoConnection:
                self._failures[host] += 1
                raise
            end = self._store.seek(0, 2)
            if end + len(data) > MAX_FETCHED:
                raise ImageError(f"All files together have more than {MAX_FETCHED:,} bytes; download them first.")
            self._store.write(data)
            self._places[url] = (end, len(data))
            return data


def fetch(
    url: str,
    *,
    is_allowed: IsAllowed = is_public,
    context: ssl.SSLContext | None = None,
    limit: int = MAX_BYTES,
    seconds: float = MAX_SECONDS,
) -> bytes:
    """Return the bytes behind an https address, at most ``limit``, within ``seconds``.

    ``is_allowed`` says to which IP addresses a connection may go. Raises ImageError.
    """
    deadline = time.monotonic() + seconds
    context = context or ssl.create_default_context()
    for _ in range(MAX_REDIRECTS + 1):
        parts = _split(url)
        connection = _PinnedConnection(parts, _addresses(parts, is_allowed), context, deadline)
        watchdog = threading.Timer(max(deadline - time.monotonic(), 0), connection.abort)
        watchdog.daemon = True
        watchdog.start()
        try:
            target = quote(parts.path or "/", SAFE) + (f"?{quote(parts.query, SAFE)}" if parts.query else "")
            connection.request("GET", target, headers={"User-Agent": f"headstart/{__version__}"})
            with closing(connection.getresponse()) as response:
                location = response.headers.get("Location", "") if response.status in REDIRECTS else ""
                data = b"" if location else _body(response, limit)
            if connection.is_aborted:  # which looks like the end of what is sent
                raise OSError
            if not location:
                return data
            url = urljoin(url, location)
        except ImageError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            if connection.is_aborted or time.monotonic() >= deadline:
                raise _NoConnection(f"Cannot be fetched: it took more than {seconds:g} seconds.") from None
            raise _NoConnection(f"Cannot be fetched: {error_reason(error)}.") from None
        finally:
            watchdog.cancel()
            connection.close()
    raise ImageError(f"Cannot be fetched: more than {MAX_REDIRECTS} redirects.")


def _split(url: str) -> SplitResult:
    """Return the parts of an address. Raises ImageError for one that is not https."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme == "https" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ImageError(f"Cannot be fetched: {url[:100]!r} is not an https address.")
    return parts


def _addresses(parts: SplitResult, is_allowed: IsAllowed) -> list[str]:
    """Resolve a host. Raises ImageError where one of its addresses is not allowed."""
    host = str(parts.hostname)
    try:
        found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _NoConnection(f"Cannot be fetched: {host[:100]} is not known ({error_reason(error)}).") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not is_allowed(address):
            raise ImageError(f"Cannot be fetched: {host[:100]} is {address}, which is not on the public internet.")
    return addresses


class _PinnedConnection(http.client.HTTPSConnection):
    """A connection to one of ``addresses``, whose certificate must be that of the host."""

    def __init__(self, parts: SplitResult, addresses: list[str], context: ssl.SSLContext, deadline: float) -> None:
        super().__init__(str(parts.hostname), parts.port, context=context)
        self._addresses, self._tls, self._deadline = addresses, context, deadline
        self.is_aborted = False
        self._opened: socket.socket | None = None  # ``sock`` is None while a body is read

    def connect(self) -> None:
        """Connect to the first address that answers. Raises OSError."""
        for i, address in enumerate(self._addresses):
            try:
                remaining = max(self._deadline - time.monotonic(), 0.01)
                plain = socket.create_connection((address, self.port), remaining)
                break
            except OSError:
                if i + 1 == len(self._addresses):
                    raise
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        self._opened = self.sock
        self.sock.do_handshake()  # when ``abort`` can reach it

    def abort(self) -> None:
        """End whatever waits for this connection, from another thread."""
        self.is_aborted = True
        with suppress(OSError):
            if self._opened is not None:
                socket.socket.shutdown(self._opened, socket.SHUT_RDWR)  # below TLS, which belongs to the other thread


def _body(response: http.client.HTTPResponse, limit: int) -> bytes:
    """Return the body of a response. Raises ImageError for an error, for too much, and for less than announced."""
    if response.status != 200:
        raise ImageError(f"Cannot be fetched: the server answered {response.status} {response.reason[:100]}.")
    announced = response.length
    data = bytearray()
    while len(data) <= limit and (announced is None or announced <= limit):
        block = response.read1(CHUNK)
        if not block:
            if announced is not None and len(data) < announced:
                raise _NoConnection(f"Cannot be fetched: {len(data):,} of {announced:,} bytes arrived.")
            return bytes(data)
        data += block
    raise ImageError(f"Cannot be fetched: it has more bytes than the limit of {limit:,}.")
