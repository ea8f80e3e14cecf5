"""Findings of the data check, grouped by kind."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.report.data import FindingSummary, Report

KINDS = {  # title and description of each kind, most serious first
    "leak": ("Leaks between splits", "The same image is in two splits, so the accuracy measured on it is too high."),
    "conflicting_labels": ("Conflicting labels", "Copies of one image are labelled differently."),
    "label_issue": ("Label issues", "The model contradicts the label as surely as it recognises other images."),
    "exact_duplicate": ("Exact duplicates", "The same file occurs more than once."),
    "near_duplicate": ("Near duplicates", "The same image, re-encoded, resized or mirrored."),
    "outlier": ("Outliers", "Unlike all other images; check whether they belong here."),
    "unreadable": ("Unreadable files", "Excluded from the fit, with the reason."),
    "tiny": ("Very small images", "Much smaller than the input of the backbone."),
    "odd_shape": ("Unusual aspect ratios", "Much wider than tall, or much taller than wide."),
    "empty": ("Empty images", "Without any edge: one colour, fog, or a covered lens."),
    "dark": ("Dark images", "Nearly black."),
    "bright": ("Bright images", "Nearly white."),
    "blurred": ("Blurred images", "Even the strongest edges are soft."),
    "grey": ("Images without colour", "Nearly all other images have colour."),
    "empty_class": ("Small classes", "Too few images to train on or to measure an accuracy."),
    "imbalance": ("Class imbalance", "One class has many times as many images as another."),
}


@dataclass(frozen=True)
class FindingGroup:
    """Findings of one kind: its title and description, the number of all findings, and those shown."""

    kind: str
    title: str
    description: str
    count: int
    findings: tuple[FindingSummary, ...]


def findings_by_kind(report: Report) -> list[FindingGroup]:
    """Return the findings of a report by kind, in the order of ``KINDS``; kinds without findings are left out."""
    groups = []
    for kind, (title, description) in KINDS.items():
        findings = tuple(finding for finding in report.findings if finding.kind == kind)
        if findings:
            count = report.finding_counts.get(kind, len(findings))
            groups.append(FindingGroup(kind, title, description, count, findings))
    return groups
