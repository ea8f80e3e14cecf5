"""Finding: one issue in a dataset."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = (  # those that cost most first
    "leak",
    "conflicting_labels",
    "exact_duplicate",
    "near_duplicate",
    "label_issue",
    "outlier",
    "unreadable",
    "tiny",
    "odd_shape",
    "dark",
    "bright",
    "blurred",
    "grey",
    "empty_class",
    "imbalance",
)


@dataclass(frozen=True)
class Finding:
    """One issue: its kind (one of ``KINDS``), the files, the confidence (0 to 1), what to do, and why."""

    kind: str
    files: tuple[str, ...]
    confidence: float
    action: str
    why: str

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "kind": self.kind,
            "files": list(self.files),
            "confidence": round(self.confidence, 4),
            "action": self.action,
            "why": self.why,
        }
