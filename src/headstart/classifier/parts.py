"""Parts of a model: folders of features, and models that keep theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headstart.errors import OptionError
from headstart.features.rows import FeatureRows, merge
from headstart.features.rows_folder import read_rows
from headstart.files import recover_folder
from headstart.model.folder_files import FEATURES


def read_part(path: Path) -> FeatureRows:
    """Read the rows in a folder of features, or those that a model keeps.

    Raises OptionError for a model that keeps none, DataError for features that cannot be read, MissingExtraError.
    """
    recover_folder(path)
    if not path.is_dir():
        raise OptionError(
            f"There is no folder {path}; give a folder of headstart embed, or a model that keeps features."
        )
    if not (path / "config.json").exists():
        return read_rows(path)
    if not (path / FEATURES).is_dir() or (path / FEATURES).is_symlink():
        raise OptionError(
            f"{path} keeps no features, so it cannot be made anew without its images; fit it again with "
            "headstart fit DATA --keep-features."
        )
    return read_rows(path / FEATURES)


def merge_parts(paths: Sequence[Path], *, mixed: bool = False) -> FeatureRows:
    """Read parts and put them together, as ``features.rows.merge`` does. Raises what ``read_part`` and that raise."""
    return merge([read_part(path) for path in paths], [str(path) for path in paths], mixed=mixed)
