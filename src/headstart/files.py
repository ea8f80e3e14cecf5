"""Where Headstart keeps what it can make again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$HEADSTART_CACHE``, else ``$XDG_CACHE_HOME/headstart``, else ``~/.cache/headstart``."""
    if folder := os.environ.get("HEADSTART_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headstart"
