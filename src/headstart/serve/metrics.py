"""Metrics of a server, as Prometheus reads them (text format 0.0.4)."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.serve.models import Models, Served

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Metrics:
    """Counts of requests by route and status, and how long those of a route took."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: dict[str, list[int]] = field(default_factory=dict)  # by route, how many up to each bound, and above
    sums: Counter[str] = field(default_factory=Counter)
    under_way: int = 0

    def add(self, route: str, status: int, seconds: float) -> None:
        """Add a request."""
        self.requests[route, status] += 1
        self.seconds.setdefault(route, [0] * (len(BOUNDS) + 1))[bisect_left(BOUNDS, seconds)] += 1
        self.sums[route] += seconds  # type: ignore[assignment]


def counted(app: ASGIApp, metrics: Metrics, route_of: Callable[[str], str]) -> ASGIApp:
    """Count the requests to an application, also those that its guards refuse. ``route_of`` names that of a path."""

    async def with_counts(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499  # the client went away

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        metrics.under_way += 1
        try:
            await app(scope, receive, sent)
        finally:
            metrics.under_way -= 1
            metrics.add(route_of(scope["path"]), status, time.perf_counter() - start)

    return with_counts


def text(metrics: Metrics, models: Models) -> str:
    """Return all metrics."""
    return "\n".join([*_requests(metrics), *_models(models)]) + "\n"


def _requests(metrics: Metrics) -> Iterator[str]:
    yield from _head("headstart_requests_total", "counter", "Requests answered, refused ones included.")
    for (route, status), count in sorted(metrics.requests.items()):
        yield _sample("headstart_requests_total", count, route=route, status=str(status))
    yield from _head("headstart_requests_under_way", "gauge", "Requests that are being received or answered.")
    yield _sample("headstart_requests_under_way", metrics.under_way)
    name = "headstart_request_seconds"
    yield from _head(name, "histogram", "Seconds from the headers of a request to the end of its answer.")
    for route, counts in sorted(metrics.seconds.items()):
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), accumulate(counts), strict=True):
            yield _sample(f"{name}_bucket", count, route=route, le=bound)
        yield _sample(f"{name}_sum", metrics.sums[route], route=route)
        yield _sample(f"{name}_count", sum(counts), route=route)


def _models(models: Models) -> Iterator[str]:
    gauges: Mapping[str, tuple[str, str, Callable[[Served], float | None]]] = {
        "headstart_model_ready": ("gauge", "Whether the model has proven itself.", lambda s: s.engine is not None),
        "headstart_images_total": ("counter", "Images answered.", lambda s: s.images),
        "headstart_images_rejected_total": ("counter", "Images rejected as none of the classes.", lambda s: s.rejected),
        "headstart_images_unread_total": ("counter", "Images that could not be read.", lambda s: s.unread),
        "headstart_model_reloads_total": ("counter", "Times that a replaced folder was loaded.", lambda s: s.reloads),
        "headstart_model_load_failures_total": ("counter", "Times that it could not be.", lambda s: s.failures),
        "headstart_queue_images": (
            "gauge",
            "Images that are being decoded or wait for the network.",
            lambda s: None if s.engine is None else s.engine.batcher.waiting,
        ),
        "headstart_rejected_share": ("gauge", "Share of the last 1,000 images rejected.", lambda s: _drift(s, "share")),
        "headstart_rejected_share_expected": ("gauge", "The share promised.", lambda s: _drift(s, "expected")),
        "headstart_drift_p_value": (
            "gauge",
            "Chance of so many rejected without drift.",
            lambda s: _drift(s, "p_value"),
        ),
        "headstart_drift_alarm": ("gauge", "Whether chance explains them no longer.", lambda s: _drift(s, "is_alarm")),
    }
    for name, (kind, help_text, value_of) in gauges.items():
        yield from _head(name, kind, help_text)
        for served in models.served.values():
            value = value_of(served)
            if value is not None:
                yield _sample(name, float(value), model=served.name)
    yield from _head("headstart_batches_total", "counter", "Batches that ran, by their number of images.")
    for served in models.served.values():
        for size, count in sorted(served.engine.batcher.sizes.items()) if served.engine else ():
            yield _sample("headstart_batches_total", count, model=served.name, images=str(size))
    yield from _head("headstart_model_info", "gauge", "SHA-256 of the model.")
    for served in models.served.values():
        if served.engine is not None:
            yield _sample("headstart_model_info", 1, model=served.name, sha256=served.engine.model.sha256)


def _drift(served: Served, name: str) -> float | None:
    if served.drift is None:
        return None
    values = served.drift.to_dict()
    if name == "share":
        return float(values["rejected"] / values["images"]) if values["images"] else 0.0
    return float(values[name])


def _head(name: str, kind: str, help_text: str) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"


def _sample(name: str, value: float, **labels: str) -> str:
    """Return a line; labels are names of models, routes and hashes, none of which need escaping."""
    named = ",".join(f'{key}="{text}"' for key, text in labels.items())
    return f"{name}{{{named}}} {value:.10g}" if named else f"{name} {value:.10g}"
