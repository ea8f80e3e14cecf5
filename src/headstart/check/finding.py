"""What a finding is."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = (
    "leak", "conflicting_labels", "exact_duplicate", "near_duplicate", "label_suspect", "outlier", "unreadable",
    "tiny", "odd_shape", "dark", "bright", "blurred", "grey", "empty_class", "imbalance",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """Something to look at: its kind (one of ``KINDS``), the files, how sure it is (0 to 1), what to do, and why."""

    kind: str
    files: tuple[str, ...]
    confidence: float
    action: str
    why: str

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "kind": self.kind, "files": list(self.files), "confidence": round(self.confidence, 4),
            "action": self.action, "why": self.why,
        }  # fmt: skip
