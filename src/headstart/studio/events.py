"""Events for pages that are open: each gets all that happens from when it began to listen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

from headstart.files import json_text

MAX_WAITING = 256  # events for a page that does not read; then it is let go, and fetches everything anew
KEEP_ALIVE = 15.0  # seconds between comments, so that a connection is not taken for dead


class Events:
    """Where events are sent from any thread, and read by any number of listeners of one event loop."""

    def __init__(self) -> None:
        self._listeners: dict[asyncio.Queue[str | None], asyncio.AbstractEventLoop] = {}
        self._lock = threading.Lock()
        self._is_closed = False

    def send(self, name: str, value: object) -> None:
        """Send an event to all listeners; thread-safe."""
        text = f"event: {name}\ndata: {json_text(value)}\n\n"
        with self._lock:
            listeners = list(self._listeners.items())
        for queue, loop in listeners:
            with suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(self._put, queue, text)

    def close(self) -> None:
        """Let all listeners end."""
        self._is_closed = True
        with self._lock:
            listeners = list(self._listeners.items())
        for queue, loop in listeners:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._end, queue)

    async def listen(self) -> AsyncIterator[str]:
        """Yield events as text of server-sent events."""
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        with self._lock:
            self._listeners[queue] = asyncio.get_running_loop()
        try:
            yield ": hello\n\n"
            while not self._is_closed:
                try:
                    text = await asyncio.wait_for(queue.get(), KEEP_ALIVE)
                except TimeoutError:
                    text = ": still here\n\n"
                if text is None:
                    return
                yield text
        finally:
            with self._lock:
                self._listeners.pop(queue, None)

    def _put(self, queue: asyncio.Queue[str | None], text: str) -> None:
        if queue.qsize() < MAX_WAITING:
            queue.put_nowait(text)
        else:
            self._end(queue)

    def _end(self, queue: asyncio.Queue[str | None]) -> None:
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)
