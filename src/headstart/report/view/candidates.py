"""Heads compared in the selection: the best setting of each cut and kind of head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.report.text import clip, plain
from headstart.report.view.run_values import RunValues, finite_number

MAX_ROWS = 25


@dataclass(frozen=True)
class Candidate:
    """Head that was compared, with its leave-one-group-out log-loss and accuracy."""

    taps: str
    head: str
    settings: str
    log_loss: float
    accuracy: float
    is_selected: bool


def best_candidates(run: RunValues) -> tuple[list[Candidate], int]:
    """Return the best setting of each cut and kind of head, lowest log-loss first, and the number of all candidates.

    The selected head stands for its cut and kind whatever its log-loss is.
    """
    entries = run.get("candidates")
    candidates = [_candidate(entry, run) for entry in entries] if isinstance(entries, list) else []
    valid = [candidate for candidate in candidates if candidate is not None]
    best: dict[tuple[str, str], Candidate] = {}
    for candidate in valid:
        key = (candidate.taps, candidate.head)
        if key not in best or _rank(candidate) > _rank(best[key]):
            best[key] = candidate
    return sorted(best.values(), key=lambda candidate: candidate.log_loss)[:MAX_ROWS], len(valid)


def _rank(candidate: Candidate) -> tuple[bool, float]:
    return candidate.is_selected, -candidate.log_loss


def _candidate(entry: Any, run: RunValues) -> Candidate | None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("taps"), list):
        return None
    log_loss, accuracy = finite_number(entry.get("log_loss")), finite_number(entry.get("accuracy"))
    if log_loss is None or accuracy is None:
        return None
    settings = {key: value for key, value in entry.items() if key not in ("taps", "kind", "log_loss", "accuracy")}
    kind = str(entry.get("kind")) + (" on random features" if "random_features" in settings else "")
    return Candidate(
        taps=clip(plain(" + ".join(map(str, entry["taps"])))),
        head=clip(plain(kind)),
        settings=clip(plain(", ".join(_setting(key, value) for key, value in settings.items()))),
        log_loss=log_loss,
        accuracy=accuracy,
        is_selected=_is_selected(entry, settings, run),
    )


def _is_selected(entry: Mapping[str, Any], settings: Mapping[str, Any], run: RunValues) -> bool:
    head = run.get("head")
    if not isinstance(head, Mapping):
        return False
    selected_settings = {key: value for key, value in head.items() if key not in ("kind", "temperature")}
    is_same_head = entry.get("kind") == head.get("kind") and settings == selected_settings
    return is_same_head and entry["taps"] == run.get("cut")


def _setting(key: str, value: Any) -> str:
    name = "random features" if key == "random_features" else key
    return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
