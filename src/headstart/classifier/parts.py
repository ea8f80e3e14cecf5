"""Parts of a model: folders of features, and models that keep theirs, to be made anew."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.classifier.kept_rows import labels_to_learn
from headstart.classifier.refit import AnyFitResult, fit_features, options_from_dict
from headstart.errors import ModelError, OptionError, untrusted
from headstart.features import Compute
from headstart.features.rows import FeatureRows, joined, merge_sources, put_in_order
from headstart.features.rows_folder import FILE, MAX_FILE, RowsFolder, open_rows
from headstart.files import read_limited, recover_folder
from headstart.machine import one_at_a_time
from headstart.model.folder import read_model
from headstart.model.folder_files import FEATURES


def open_part(path: Path) -> RowsFolder:
    """Open a folder of features, or that which a model keeps.

    Raises OptionError for a model that keeps none, DataError for features that cannot be read, MissingExtraError.
    """
    recover_folder(path)
    if not path.is_dir():
        raise OptionError(
            f"There is no folder {path}; give a folder of headstart embed, or a model that keeps features."
        )
    if not (path / "config.json").exists():
        return open_rows(path)
    if not (path / FEATURES).is_dir() or (path / FEATURES).is_symlink():
        raise OptionError(
            f"{path} keeps no features, so it cannot be made anew without its images; fit it again with "
            "headstart fit DATA --keep-features."
        )
    return open_rows(path / FEATURES)


def read_part(path: Path) -> FeatureRows:
    """Read the rows in a folder of features, or those that a model keeps. Raises what ``open_part`` does."""
    part = open_part(path)
    return FeatureRows(part.source, joined(part.read(), part.count))


def merge_parts(paths: Sequence[Path], *, mixed: bool = False) -> FeatureRows:
    """Read parts and put them together, as ``features.rows.merge`` does. Raises what ``open_part`` and that raise.

    All rows are in memory once, with one shard.
    """
    parts = [open_part(path) for path in paths]
    source, order = merge_sources([part.source for part in parts], [str(path) for path in paths], mixed=mixed)
    shards = (rows for i in order for rows in parts[i].read())
    return FeatureRows(source, put_in_order(joined(shards, sum(part.count for part in parts))))


@dataclass(frozen=True)
class KeptModel:
    """A model that keeps its features, as it is read to be made anew.

    ``run`` is the content of ``run.json``, ``forgotten`` what that says of images that were forgotten before, ``state``
    the ``folder_state`` as it was read.
    """

    folder: Path
    classes: tuple[str, ...]
    features: FeatureRows
    run: Mapping[str, Any]
    forgotten: Mapping[str, Any]
    has_report: bool
    compute: Compute
    state: str


def open_kept(folder: Path, workers: int | None = None) -> KeptModel:
    """Read a model that keeps its features. Raises ModelError, DataError; OptionError for another model, with why."""
    if not (folder / "config.json").exists():
        recover_folder(folder)
    state = folder_state(folder)
    model = read_model(folder)
    if model.head.kind == "mlp":
        raise OptionError(f"{folder} has an mlp head, which is trained on the images: fit again with those you want.")
    with untrusted(f"{folder}: run.json", ModelError):
        if (model.run.get("fine_tuning") or {}).get("kept") == "fine-tuned":
            raise OptionError(
                f"{folder} was fine-tuned: its backbone was trained on the images; fine-tune again with those you want."
            )
        features = read_part(folder)
        given = model.run.get("forgotten") or {"images": 0, "times": []}
        times = [{"date": str(time["date"]), "images": int(time["images"])} for time in given["times"]]
        forgotten = {"images": int(given["images"]), "times": times}
    has_report = (folder / "report.html").exists()
    compute = Compute(workers=workers)
    return KeptModel(folder, model.classes, features, model.run, forgotten, has_report, compute, state)


def folder_state(folder: Path) -> str:
    """Return a hash of the files that say what a model and the features in its folder are; "" where it is no model."""
    digest = hashlib.sha256()
    for name in ("config.json", "run.json", f"{FEATURES}/{FILE}"):
        try:
            digest.update(hashlib.sha256(read_limited(folder / name, MAX_FILE)).digest())
        except OSError:
            return ""  # whoever reads it says what is wrong
    return digest.hexdigest()


def save_anew(model: KeptModel, result: AnyFitResult, output: Path | None) -> str:
    """Write a model that was made anew to ``output``, or in the place of ``model``, and return its folder.

    What another process has made of ``model`` since it was read is not replaced: it may be without images that this
    one has. Raises OptionError then, ModelError.
    """
    if output is not None:
        return result.save(output)
    with one_at_a_time(model.folder, wait=True):  # to compare and replace it
        if folder_state(model.folder) != model.state:
            raise OptionError(
                f"{model.folder} was changed by another process meanwhile, and is as that left it; run the same "
                "command again."
            )
        return result.save(model.folder, overwrite=True)


def refit(model: KeptModel, features: FeatureRows, *, forgotten: Mapping[str, Any] | None) -> AnyFitResult:
    """Fit to other rows with the options of a model. ``forgotten`` is what ``run.json`` is to say of that.

    Raises ModelError, OptionError, DataError.
    """
    classes = labels_to_learn(features)
    if not isinstance(model.run.get("options"), dict):
        raise ModelError(f"{model.folder}: run.json has no options of the fit; fit again with --keep-features.")
    options, settings = options_from_dict(model.run["options"], classes, model.compute)
    result = fit_features(features, options, settings)
    run = dict(result.model.run) if forgotten is None else {**result.model.run, "forgotten": dict(forgotten)}
    return replace(result, model=replace(result.model, run=run))
