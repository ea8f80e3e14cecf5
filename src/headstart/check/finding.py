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
    "empty",
    "dark",
    "bright",
    "blurred",
    "grey",
    "empty_class",
    "imbalance",
)
# How sure a finding is. The share of the findings behind each word that are right is measured by
# benchmarks/planted_faults.py and shown in docs/explanation/check-and-report.md.
CERTAINTIES = ("certain", "likely", "possible")
MISSING, WRONG = "missing", "wrong"  # what a label of an image with several may be


@dataclass(frozen=True)
class Finding:
    """One issue: its kind (one of ``KINDS``), the files, how sure it is, what to do, and why.

    ``certainty`` is one of ``CERTAINTIES``; ``confidence`` (0 to 1) orders the findings of one kind. A label issue has
    the ``suggested_label`` too. Where images have several labels, that is the label in question, and ``state`` says
    whether it is missing or wrong.
    """

    kind: str
    files: tuple[str, ...]
    certainty: str
    confidence: float
    action: str
    why: str
    suggested_label: str = ""
    state: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        cell = {"label": self.suggested_label, "state": self.state} if self.state else {}
        return {
            "kind": self.kind,
            "files": list(self.files),
            "certainty": self.certainty,
            "confidence": round(self.confidence, 4),
            "action": self.action,
            "why": self.why,
            **cell,
        }
