"""ServerOptions: where a server listens, whom it answers, and its limits."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from headstart.errors import OptionError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
MIN_TOKEN = 8  # characters
MIB = 2**20


@dataclass(frozen=True)
class ServerOptions:
    """Where a server listens, whom it answers, and its limits.

    ``port`` 0 takes any free one. With a ``token`` requests must carry it; without one their Host must be a name of the
    loopback interface, ``host``, or one of ``allowed_hosts``. ``insecure`` lets a server without a token listen beyond
    the loopback interface. ``cors_origins`` are the origins, like "https://example.org", whose pages may read answers.

    ``max_body`` bytes may a request have, and ``max_held`` all that are being answered together; ``max_requests`` are
    answered at a time, on at most ``max_connections``. ``header_seconds`` and ``body_seconds`` has a client to send the
    headers and the body of a request, ``write_seconds`` to take what the server writes; ``answer_seconds`` has the
    server. Raises OptionError.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    insecure: bool = False
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_body: int = 32 * MIB
    max_held: int = 256 * MIB
    max_requests: int = 64
    max_connections: int = 512
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    write_seconds: float = 60.0
    answer_seconds: float = 60.0
    stop_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.token is not None and (len(self.token) < MIN_TOKEN or not self.token.isascii()):
            raise OptionError(
                f"The token has {len(self.token)} characters; give at least {MIN_TOKEN}, of ASCII alone: "
                "python -c 'import secrets; print(secrets.token_urlsafe())' makes one."
            )
        if not is_loopback(self.host) and self.token is None and not self.insecure:
            raise OptionError(
                f"On {self.host} everybody who reaches this machine could use the server; "
                "give --token (or HEADSTART_TOKEN), or --insecure."
            )
        for name in self.allowed_hosts:
            if name != host_name(name) or not re.fullmatch(r"[a-z0-9.-]+|\[[0-9a-f:.]+\]", name):
                raise OptionError(f"Host {name!r} cannot be allowed; give a name in lower case without a port.")
        for origin in self.cors_origins:
            if not re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]+)?", origin):
                raise OptionError(f"Origin {origin!r} cannot be allowed; give one like https://example.org, without *.")

    @property
    def host_names(self) -> frozenset[str]:
        """The names that a Host header may have."""
        host = self.host.lower()
        own = f"[{host}]" if ":" in host else host
        return LOOPBACK_NAMES | {own} | set(self.allowed_hosts)


def is_loopback(host: str) -> bool:
    """Return whether a host, by name or address, is this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """Return the name in a Host header, in lower case and without its port.

    >>> host_name("LocalHost:8000"), host_name("[::1]:8000"), host_name("example.org")
    ('localhost', '[::1]', 'example.org')
    """
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?", host)
    return match[1].lower() if match else ""
