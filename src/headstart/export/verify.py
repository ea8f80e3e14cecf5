"""``headstart verify EXPORT``: the proof that an export carries, replayed on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headstart.errors import HeadstartError, MissingExtraError, ModelError, one_line
from headstart.export.about import About, changed_files, read_parity
from headstart.export.export import find_format
from headstart.export.proof import Proof, prove
from headstart.export.proof_set import read_proof_set


@dataclass(frozen=True)
class ExportVerification:
    """Result of the replay: ``problems`` are empty where the export answers as it must.

    ``proof`` is None where the format's runtime is not here; ``not_proven`` says what was not proven, and the command
    that proves it. ``runtime`` is its name and version.
    """

    about: About
    runtime: str
    proof: Proof | None
    problems: tuple[str, ...]
    not_proven: tuple[tuple[str, str], ...]


def verify_export(folder: Path) -> ExportVerification:
    """Replay the proof of an export. Raises ModelError for a folder that is damaged or hostile."""
    about, parity = read_parity(folder)
    format = find_format(about.to)
    problems = [f"{name} is not the file that was proven" for name in changed_files(folder, parity["files"])]
    proof_set = read_proof_set(folder, about)
    not_proven = list(format.not_proven)
    try:
        target = format.load(folder, about)
    except MissingExtraError as error:
        not_proven.insert(0, (one_line(error), f"{format.mend}, then: headstart verify EXPORT"))
        return ExportVerification(about, "", None, tuple(problems), tuple(not_proven))
    except ModelError:
        raise
    except HeadstartError as error:
        raise ModelError(f"{folder} cannot be loaded: {one_line(error)}") from None
    try:
        proof = prove(target, about, proof_set, format)
    finally:
        target.close()
    return ExportVerification(
        about, f"{target.runtime} {target.version}", proof, (*problems, *proof.problems), tuple(not_proven)
    )
