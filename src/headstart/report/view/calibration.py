"""Calibration in numbers: mean confidence against accuracy, and the error rate at round coverages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.report.data import ReliabilityBin
from headstart.report.text import SET_TITLES

COVERAGES = (0.5, 0.75, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class CalibrationSummary:
    """Calibration on one of ``SETS``. ``risk`` holds (coverage, error rate) at each of ``COVERAGES``."""

    name: str
    title: str
    mean_confidence: float
    accuracy: float
    bins: tuple[ReliabilityBin, ...]
    risk: tuple[tuple[float, float], ...]


def calibration_summary(
    name: str, bins: tuple[ReliabilityBin, ...], risk_coverage: Sequence[tuple[float, float]] = ()
) -> CalibrationSummary:
    """Return the calibration of an evaluation, one of ``SETS``, in numbers."""
    count = sum(b.count for b in bins) or 1
    return CalibrationSummary(
        name=name,
        title=SET_TITLES[name],
        mean_confidence=sum(b.mean_confidence * b.count for b in bins) / count,
        accuracy=sum(b.accuracy * b.count for b in bins) / count,
        bins=bins,
        risk=_risk_at_coverages(risk_coverage),
    )


def _risk_at_coverages(risk_coverage: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return the error rate at each coverage: that of the last point of the curve up to it."""
    rows = []
    for coverage in COVERAGES:
        error_rates = [error_rate for share, error_rate in risk_coverage if share <= coverage + 1e-9]
        if error_rates:
            rows.append((coverage, error_rates[-1]))
    return tuple(rows)
