"""What an export carries to be proven anywhere: images, what the reference answers for them, and for their skews.

It lies in the folder ``proof``: the images as files, so that any program can be tried on them, and ``expected.npz``.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ModelError, untrusted
from headstart.export.about import PROOF, About
from headstart.export.answers import Answers, scores_of
from headstart.export.formats import Run
from headstart.export.proof_images import encoded_files, grids, low_margin_images
from headstart.export.skews import pixel_skewed_answers, prepared, skewed_answers

EXPECTED = "expected.npz"
MAX_BYTES = 256 * 2**20
MAX_CLASSES = 2000  # for which the answers of skews are kept


@dataclass(frozen=True)
class ProofSet:
    """Images and the answers of the reference for them.

    ``files`` are encoded images by name, ``pixels`` [m, height, width, 3] prepared images of low margin; ``skewed`` and
    ``pixels_skewed`` are by name of a skew what the reference answers for files, and for pixels, that have it.
    ``level_off`` is what it answers for the files where each value of a pixel is a level of 255 lower or higher, or as
    it is, at random; None for an older export, which does not say it.
    """

    files: Mapping[str, bytes]
    answers: Answers
    level_off: Answers | None
    skewed: Mapping[str, Answers]
    pixels: NDArray[np.uint8]
    pixels_answers: Answers
    pixels_skewed: Mapping[str, Answers]


def make_proof_set(run: Run, about: About) -> ProofSet:
    """Draw the images and let the reference ``run`` answer them."""
    files = encoded_files()
    pixels = np.stack([prepared(data, about.preprocess) for data in files.values()])
    low = _low_margin(run, about, pixels)
    low = low if len(low) else pixels[:4]  # all images get one answer: at least some pixels
    keeps_skews = len(about.classes) <= MAX_CLASSES
    skewed = skewed_answers(list(files.values()), about.preprocess, run) if keeps_skews else {}
    low_skewed = pixel_skewed_answers(low, run) if keeps_skews else {}
    noise = np.random.default_rng(0).integers(-1, 2, pixels.shape)
    level_off = run(np.clip(pixels + noise, 0, 255).astype(np.uint8))
    return ProofSet(files, run(pixels), level_off, skewed, low, run(low), low_skewed)


def _low_margin(run: Run, about: About, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    def scores(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return scores_of(run(images).probabilities, about)

    if about.label_thresholds is None:
        return low_margin_images(pixels, scores)
    limits = scores_of(np.array(about.label_thresholds.thresholds), about)
    more = grids(about.preprocess.height, about.preprocess.width)  # so that each label is found on both sides
    return low_margin_images(np.concatenate([pixels, more]), lambda images: scores(images) - limits, len(about.classes))


def write_proof_set(proof: ProofSet, folder: Path) -> None:
    """Write the folder ``proof`` of an export."""
    (folder / PROOF).mkdir()
    for name, data in proof.files.items():
        (folder / PROOF / name).write_bytes(data)
    arrays: dict[str, NDArray[np.generic]] = {
        "names": np.array(list(proof.files)),
        "pixels": proof.pixels,
        "skews": np.array(list(proof.skewed)),
        "pixel_skews": np.array(list(proof.pixels_skewed)),
    }
    for key, answers in _named_answers(proof).items():
        arrays[f"{key}.probabilities"] = answers.probabilities.astype(np.float32)
        arrays[f"{key}.distances"] = answers.ood_scores.astype(np.float32)
    np.savez(folder / PROOF / EXPECTED, **arrays)  # type: ignore[arg-type]


def _named_answers(proof: ProofSet) -> dict[str, Answers]:
    named = {"files": proof.answers, "low": proof.pixels_answers}
    named |= {} if proof.level_off is None else {"level_off": proof.level_off}
    named |= {f"skew{i}": answers for i, answers in enumerate(proof.skewed.values())}
    return named | {f"pixel_skew{i}": answers for i, answers in enumerate(proof.pixels_skewed.values())}


def read_proof_set(folder: Path, about: About) -> ProofSet:
    """Read the folder ``proof`` of an export. Raises ModelError."""
    path = folder / PROOF / EXPECTED
    with untrusted(f"{path}", ModelError):
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{folder} has no {PROOF}/{EXPECTED}, or a larger one than is ever written; export again.")
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("it is compressed")  # never by us, and what it unpacks to would have no bound
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            names = [str(name) for name in arrays["names"]]
            files = {name: _read_file(folder, name) for name in names}
            pixels = arrays["pixels"]
            shape = (len(pixels), about.preprocess.height, about.preprocess.width, 3)
            if pixels.dtype != np.uint8 or pixels.shape != shape:
                raise ValueError(f"its pixels are {pixels.dtype} {pixels.shape}")

            def answers(key: str, count: int) -> Answers:
                probabilities, distances = arrays[f"{key}.probabilities"], arrays[f"{key}.distances"]
                if probabilities.shape != (count, len(about.classes)) or distances.shape != (count,):
                    raise ValueError(f"its answers {key} do not fit the classes")
                return Answers(probabilities.astype(np.float64), distances.astype(np.float64))

            return ProofSet(
                files,
                answers("files", len(names)),
                answers("level_off", len(names)) if "level_off.probabilities" in arrays else None,
                {str(name): answers(f"skew{i}", len(names)) for i, name in enumerate(arrays["skews"])},
                pixels,
                answers("low", len(pixels)),
                {str(name): answers(f"pixel_skew{i}", len(pixels)) for i, name in enumerate(arrays["pixel_skews"])},
            )


def _read_file(folder: Path, name: str) -> bytes:
    path = folder / PROOF / name
    if Path(name).name != name or path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{folder}: the image {PROOF}/{name} is missing or cannot be read; export the model again.")
    return path.read_bytes()
