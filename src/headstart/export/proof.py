"""The proof: an export answers in its own runtime what the model answers, on prepared images and on files.

The same for every format. What an export carries (``proof_set``) is replayed by ``headstart verify``; the golden images
of the model and the images of a dataset count when it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from headstart.data import Dataset
from headstart.errors import ImageError
from headstart.export.about import About
from headstart.export.answers import TOLERANCES, Answers, Comparison, Tolerance, compare, join, other_pixels
from headstart.export.formats import Format, Target
from headstart.export.proof_set import ProofSet
from headstart.export.skews import name_skew
from headstart.model.model import GoldenSample

MAX_NAMED = 5  # files that cannot be read
BATCH = 16  # files that are in memory at a time
GOLDEN, LOW_MARGIN, FILES = "golden images", "low-margin images", "image files"


@dataclass(frozen=True)
class Proof:
    """What was compared, and what leaves the tolerance: ``problems``, each a text, empty where the export is proven.

    ``remarks`` name what a difference within the tolerance looks like.
    """

    comparisons: tuple[Comparison, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    tolerances: Mapping[str, Tolerance]

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "tolerances": {name: tolerance.to_dict() for name, tolerance in self.tolerances.items()},
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "problems": list(self.problems),
            "remarks": list(self.remarks),
        }


def tolerances(about: About, proof: ProofSet, *, scales: bool) -> dict[str, Tolerance]:
    """Return how far the graph, and the files, of an export may be from the reference."""
    graph = TOLERANCES[about.precision]
    if scales and not about.any_size:
        return {"graph": graph, "files": graph}
    return {"graph": graph, "files": other_pixels(graph, proof.answers, proof.level_off, about)}


def prove(target: Target, about: About, proof: ProofSet, format: Format, golden: GoldenSample | None = None) -> Proof:
    """Compare a target with the answers that it must give. ``golden`` is used where it is at hand."""
    allowed = tolerances(about, proof, scales=format.scales)
    has_other_pixels = about.any_size or not format.scales
    comparisons: list[Comparison] = []
    problems, remarks = list(target.problems), []
    if has_other_pixels and proof.level_off is None:
        remarks.append(
            "an older export, which does not say what a level in the pixels changes: its image files are held to the "
            "least difference that is allowed in any export"
        )

    def add(of: str, names: Sequence[str], expected: Answers, found: Answers, skewed: Mapping[str, Answers]) -> None:
        comparison = compare(of, names, expected, found, about)
        comparisons.append(comparison)
        tolerance = allowed["files" if of == FILES else "graph"]
        # Two classes may be so near to each other, or a label to its threshold, that other pixels change the answer.
        may_change = about.precision != "fp32" or (of == FILES and has_other_pixels and format.refuses_files)
        wrong = comparison.problems(tolerance, may_change=may_change)
        unread = [name for name in comparison.unread if not name.endswith(format.cannot_read or ("\0",))]
        if unread:
            names = ", ".join(unread[:MAX_NAMED]) + (", ..." if len(unread) > MAX_NAMED else "")
            wrong.append(f"{len(unread)} cannot be read ({names}: {comparison.unread[unread[0]]})")
        skew = _skew(expected, found, skewed, about)
        if wrong and of == FILES and not format.refuses_files:
            remarks.append(f"{of}, prepared in the way of this format: {', '.join(wrong)}")
        elif wrong:
            problems.append(f"{of}: {', '.join(wrong)}{f'; {skew}' if skew else ''}")
        elif skew:
            remarks.append(f"{of}: the difference is within the tolerance; {skew}")

    if target.on_pixels is not None:
        if golden is not None:
            expected = Answers(golden.probabilities.astype(np.float64), golden.ood_scores.astype(np.float64))
            names = [f"golden image {i}" for i in range(len(golden.pixels))]
            add(GOLDEN, names, expected, target.on_pixels(golden.pixels), {})
        names = [f"low-margin image {i}" for i in range(len(proof.pixels))]
        add(LOW_MARGIN, names, proof.pixels_answers, target.on_pixels(proof.pixels), proof.pixels_skewed)
    add(FILES, list(proof.files), proof.answers, target.on_files(list(proof.files.values())), proof.skewed)
    return Proof(tuple(comparisons), tuple(problems), tuple(remarks), allowed)


def _skew(expected: Answers, found: Answers, skewed: Mapping[str, Answers], about: About) -> str | None:
    """Name what explains the answers, by the images that the target could read and answers with numbers."""
    is_finite: list[bool] = np.isfinite(found.probabilities.min(axis=1)).tolist()
    rows = np.array([i for i in range(len(is_finite)) if i not in found.unread and is_finite[i]], np.int64)
    return name_skew(
        expected.rows(rows), found.rows(rows), {name: answers.rows(rows) for name, answers in skewed.items()}, about
    )


@dataclass(frozen=True)
class DataProof:
    """What an export answers for the images of a dataset, beside what ``predict`` answers.

    ``comparison`` is with ``predict``; ``decoding`` is the part of it that full decoding makes, where the export cannot
    read JPEG files at a fraction of their size and the model does. ``expected`` and ``found`` are the answers, of
    ``rows`` of the dataset. ``not_files`` counts images that are no files, which were left out.
    """

    uri: str
    comparison: Comparison
    decoding: Comparison | None
    rows: Sequence[int] = field(repr=False)
    expected: Answers = field(repr=False)
    found: Answers = field(repr=False)
    not_files: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        decoding = None if self.decoding is None else self.decoding.to_dict()
        comparison = {**self.comparison.to_dict(), "unread": len(self.comparison.unread)}
        return {"uri": self.uri, **comparison, "not_files": self.not_files, "decoding": decoding}


def prove_on_data(
    target: Target,
    about: About,
    dataset: Dataset,
    predict: Callable[[Sequence[bytes]], Answers],
    predict_decoded_in_full: Callable[[Sequence[bytes]], Answers] | None,
    progress: Callable[[int, int], None] | None = None,
) -> DataProof:
    """Compare a target with ``predict`` on the files of a dataset, and what full decoding changes, where it does.

    Images that ``predict`` cannot read are left out.
    """
    rows: list[int] = []
    parts: dict[str, list[Answers]] = {"expected": [], "found": [], "full": []}
    not_files = 0
    for start in range(0, len(dataset), BATCH):
        files: list[bytes] = []
        for i in range(start, min(start + BATCH, len(dataset))):
            try:
                source = dataset.read(i)
            except ImageError:
                continue
            if not isinstance(source, bytes):
                not_files += 1
                continue
            answer = predict([source])
            if answer.unread:
                continue
            files.append(source)
            rows.append(i)
            parts["expected"].append(answer)
        if files:
            parts["found"].append(target.on_files(files))
            if predict_decoded_in_full is not None:
                parts["full"].append(predict_decoded_in_full(files))
        if progress is not None:
            progress(min(start + BATCH, len(dataset)), len(dataset))
    joined = {name: join(answers, len(about.classes)) for name, answers in parts.items()}
    names = [dataset.items[i].path for i in rows]
    comparison = compare("data", names, joined["expected"], joined["found"], about)
    decoding = None
    if predict_decoded_in_full is not None:
        decoding = compare("decoding in full", names, joined["expected"], joined["full"], about)
    return DataProof(dataset.uri, comparison, decoding, rows, joined["expected"], joined["found"], not_files)
