"""Heads compared in the selection: the best setting of each cut, scaling and kind of head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.report.text import clip, plain
from headstart.report.view.run_values import RunValues, finite_number

MAX_ROWS = 25


@dataclass(frozen=True)
class Candidate:
    """Head that was compared: its leave-one-group-out log-loss and accuracy, and its weight in the model's head.

    Of several labels the log-loss and the weight are means over the labels, and ``accuracy`` is None.
    """

    taps: str
    head: str
    settings: str
    log_loss: float
    accuracy: float | None
    weight: float


def best_candidates(run: RunValues) -> tuple[list[Candidate], int]:
    """Return the best setting of each cut, scaling and kind of head, lowest log-loss first, and the number of all."""
    entries = run.get("candidates")
    candidates = [_candidate(entry) for entry in entries] if isinstance(entries, list) else []
    valid = [candidate for candidate in candidates if candidate is not None]
    best: dict[tuple[str, str], Candidate] = {}
    for candidate in valid:
        key = (candidate.taps, candidate.head)
        if key not in best or candidate.log_loss < best[key].log_loss:
            best[key] = candidate
    return sorted(best.values(), key=lambda candidate: candidate.log_loss)[:MAX_ROWS], len(valid)


def _candidate(entry: Any) -> Candidate | None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("taps"), list):
        return None
    log_loss, accuracy = finite_number(entry.get("log_loss")), finite_number(entry.get("accuracy"))
    if log_loss is None:
        return None
    fields = ("taps", "kind", "scaling", "log_loss", "accuracy", "weight")
    settings = {key: value for key, value in entry.items() if key not in fields}
    kind = str(entry.get("kind")) + (", scaled by channel" if entry.get("scaling") == "channel" else "")
    return Candidate(
        taps=clip(plain(" + ".join(map(str, entry["taps"])))),
        head=clip(plain(kind)),
        settings=clip(plain(", ".join(_setting(key, value) for key, value in settings.items()))),
        log_loss=log_loss,
        accuracy=accuracy,
        weight=min(1.0, max(0.0, finite_number(entry.get("weight")) or 0.0)),
    )


def _setting(key: str, value: Any) -> str:
    return f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
