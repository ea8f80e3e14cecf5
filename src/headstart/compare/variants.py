"""Variants of a fit: the values of its options that are compared on the same features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from headstart.errors import OptionError
from headstart.heads.mlp import MlpConfig
from headstart.heads.selection import HeadOptions

TYPES: Mapping[str, type] = {
    "head": str,
    "dropout": float,
    "hidden": int,
    "optimizer": str,
    "lr": float,
    "epochs": int,
    "batch_size": int,
}
OF_MLP = ("hidden", "optimizer", "lr", "epochs", "batch_size")
MAX_VARIANTS = 100


@dataclass(frozen=True)
class Variant:
    """One value of each option that varies, by the option's name, and the head that ``fit`` would make with them."""

    values: Mapping[str, str | int | float]
    options: HeadOptions

    @property
    def label(self) -> str:
        """The values as people see them, "" where nothing varies."""
        return _label(self.values)


def _label(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in values.items())


def require_label_head(kind: object, dropout: object, label: str) -> None:
    """Raise OptionError for a head that several labels cannot have; ``label`` names it."""
    if kind not in ("auto", "ridge") or dropout is not None:
        raise OptionError(f"With several labels an image the head is ridge, without dropout; leave {label} out.")


def make_variants(
    values: Mapping[str, Sequence[str | int | float]], seed: int = 0, *, several_labels: bool = False
) -> tuple[Variant, ...]:
    """Return a variant for each combination of values of the options of a head, of ``TYPES``.

    The names are those of the options of ``fit``. Raises OptionError for a value that cannot be used, for options of
    the mlp head without it, for more than ``MAX_VARIANTS`` combinations, and, where an image may have
    ``several_labels``, for heads that these cannot have, whether or not a head's packages are installed.

    >>> print("; ".join(variant.label for variant in make_variants({"head": ["ridge"], "dropout": [0, 0.5]})))
    head ridge, dropout 0.0; head ridge, dropout 0.5
    """
    parsed = {name: [_parse(name, value) for value in given] for name, given in values.items()}
    for name, given in parsed.items():
        if not given or len(set(given)) < len(given):
            raise OptionError(
                f"--{name.replace('_', '-')} names no value, or one twice; expected values like 0,0.2,0.5."
            )
    combinations = [dict(zip(parsed, combination, strict=True)) for combination in product(*parsed.values())]
    if len(combinations) > MAX_VARIANTS:
        raise OptionError(
            f"{len(combinations)} combinations are more than the {MAX_VARIANTS} that are compared at once."
        )
    for combination in combinations if several_labels else ():
        kind = "mlp" if set(OF_MLP) & set(combination) else combination.get("head", "auto")
        require_label_head(kind, combination.get("dropout"), _label(combination))
    return tuple(Variant(combination, _head_options(combination, seed)) for combination in combinations)


def _parse(name: str, value: str | int | float) -> str | int | float:
    if name not in TYPES:
        raise OptionError(f"{name!r} cannot be compared; expected {', '.join(TYPES)}.")
    try:
        parsed: str | int | float = TYPES[name](value)
    except ValueError:
        kind = "a whole number" if TYPES[name] is int else "a number"
        raise OptionError(f"--{name.replace('_', '-')} {value!r} cannot be read; expected {kind}.") from None
    return parsed


def _head_options(values: Mapping[str, str | int | float], seed: int) -> HeadOptions:
    """Return the options of the head as ``fit`` makes them. Raises OptionError."""
    head = str(values.get("head", "auto"))
    of_mlp = {name: values[name] for name in OF_MLP if name in values}
    if of_mlp and head != "mlp":
        names = ", ".join(f"--{name.replace('_', '-')}" for name in of_mlp)
        raise OptionError(f"Only the mlp head is trained; give --head mlp, or leave {names} out.")
    if "lr" in of_mlp:
        of_mlp["learning_rate"] = of_mlp.pop("lr")
    config: MlpConfig = MlpConfig(**of_mlp)  # type: ignore[arg-type]
    dropout = values.get("dropout")
    return HeadOptions(kind=head, dropout=None if dropout is None else float(dropout), seed=seed, mlp=config)
