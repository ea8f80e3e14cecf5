"""The errors that Headstart raises on purpose.

    HeadstartError
    ├── OptionError         an option has a value that cannot be used           (also a ValueError)
    ├── DataError           the images, labels or splits cannot be learned from     (also a ValueError)
    │   └── ImageError      one image cannot be read; the text says why
    ├── BackboneError       a network cannot be read, cut or run
    ├── DownloadError       a download failed, or its SHA-256 is not the recorded one
    ├── ModelError          a model folder is damaged, hostile or newer than this version
    │   └── VerifyError     predictions here differ from those stored with the model
    ├── NotFittedError      a classifier that has not been fitted was asked to predict
    └── MissingExtraError   an optional package is not installed                (also an ImportError)

Every message is one line: what happened, what was expected, how to mend it; what it names can be long, and is then cut
in the middle (``shorten``; ``args`` has all of it). The command line prints it and ends with status 2 (1 for a
VerifyError); anything that is not a ``HeadstartError`` is a bug and keeps its traceback.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Union, get_args, get_origin, get_type_hints

MAX_MESSAGE = 1000  # characters
INSTALL_PYTORCH = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"  # for processors
WITH_PYTORCH = frozenset({"torch", "timm", "keras"})  # the extras that bring PyTorch
MAX_VALUE = 60  # characters of a value in a message
KINDS: dict[type, str] = {  # of values, as people call them
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    types.NoneType: "None",
    os.PathLike: "a path",
    Mapping: "a mapping",
    Sequence: "a list",
}


def shorten(text: str, length: int = MAX_MESSAGE) -> str:
    """Return a text of at most ``length`` characters: a longer one loses its middle, and says how much.

    >>> shorten("There is no " + "x" * 200 + "; give a folder.", 70)
    'There is no xxxxxxxxxxx[... 182 characters ...]xxxxxxx; give a folder.'
    """
    if len(text) <= length:
        return text
    kept = length - len(f"[... {len(text):,} characters ...]")
    start, end = (kept + 1) // 2, kept // 2
    return f"{text[:start]}[... {len(text) - kept:,} characters ...]{text[len(text) - end :]}"


def listed(names: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """Join the first ``most`` names, and say how many more there are.

    >>> listed(["ants", "bees"], 2), listed(["ants", "bees", "wasps"], 1)
    ('ants, bees', 'ants and 2 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def shell_word(name: object) -> str:
    """Return a name as one word of a command that can be pasted, in quotes where it has blanks or what a shell expands.

    >>> shell_word("model"), shell_word("my model"), shell_word("timm:resnet50?in_chans=3")
    ('model', "'my model'", "'timm:resnet50?in_chans=3'")
    """
    if sys.platform == "win32":
        import subprocess

        return subprocess.list2cmdline([str(name)])
    import shlex  # few messages need it

    return shlex.quote(str(name))


class HeadstartError(Exception):
    """Base of every error raised on purpose."""

    def __str__(self) -> str:
        return shorten(super().__str__())


class OptionError(HeadstartError, ValueError):
    """An option has a value that cannot be used."""


class DataError(HeadstartError, ValueError):
    """The images, labels or splits cannot be learned from. scikit-learn expects a ValueError for bad X and y."""


class ImageError(DataError):
    """One image cannot be read; the text says why."""


class BackboneError(HeadstartError):
    """A network cannot be read, cut or run."""


class DownloadError(HeadstartError):
    """A download failed, or its SHA-256 is not the recorded one."""


class ModelError(HeadstartError):
    """A model folder is damaged, hostile or newer than this version."""


class VerifyError(ModelError):
    """Predictions for the golden images differ here from those stored with the model."""


class NotFittedError(HeadstartError):
    """A classifier that has not been fitted was asked to predict."""


class MissingExtraError(HeadstartError, ImportError):
    """An optional package is not installed."""


def missing_extra(problem: str, *extras: str) -> MissingExtraError:
    """Build the error for a missing package: what is not installed, and how to install the extras that bring it.

    Before an extra that brings PyTorch stands the command that installs it for processors alone: without it, pip takes
    the build for GPUs of NVIDIA, which needs 4 GB more.

    >>> print(missing_extra("There is no PyArrow", "tables"))
    There is no PyArrow; run: pip install 'headstart[tables]' (in a clone of the repository: pip install '.[tables]')
    """
    names = ",".join(extras)
    install = f"pip install 'headstart[{names}]' (in a clone of the repository: pip install '.[{names}]')"
    if WITH_PYTORCH.isdisjoint(extras):
        return MissingExtraError(f"{problem}; run: {install}")
    return MissingExtraError(f"{problem}; run: {INSTALL_PYTORCH} (not for a GPU), then: {install}")


def one_line(error: BaseException, length: int | None = 300) -> str:
    """Return the text of an error as one line of at most ``length`` characters (None: all of it).

    An error without a text is named by its type.

    >>> one_line(ValueError("expected a number,\\n  got none"))
    'expected a number, got none'
    >>> one_line(KeyError())
    'KeyError'
    """
    return " ".join(str(error).split())[:length] or type(error).__name__


def check_types(options: object) -> None:
    """Check the values in a frozen dataclass of options by its annotations. Raises OptionError.

    Numbers of NumPy, which grids of scikit-learn hold, become those of Python: JSON, in which a model keeps its
    options, has no others.
    """
    numpy = sys.modules.get("numpy")
    for name, kinds in _kinds(type(options)).items():
        value = getattr(options, name)
        if numpy is not None and isinstance(value, numpy.generic):
            value = value.item()
            object.__setattr__(options, name, value)
        if not isinstance(value, (*kinds, int) if float in kinds else kinds):
            *others, last = [KINDS.get(kind, kind.__name__) for kind in kinds]
            expected = f"{', '.join(others)} or {last}" if others else last
            raise OptionError(f"{name} {shorten(repr(value), MAX_VALUE)} cannot be used; expected {expected}.")


def _kinds(options: type) -> dict[str, tuple[type, ...]]:
    """Return the types that each field of a dataclass may have."""
    kinds = {}
    for name, hint in get_type_hints(options).items():
        is_union = isinstance(hint, types.UnionType) or get_origin(hint) is Union
        kinds[name] = tuple(get_origin(one) or one for one in (get_args(hint) if is_union else (hint,)))
    return kinds


@contextmanager
def untrusted(what: str, error: type[HeadstartError]) -> Iterator[None]:
    """Let whatever goes wrong while untrusted data is read become ``error``, in one line that begins with ``what``.

    For damaged bytes decoders and parsers raise anything, from struct.error to RecursionError, so that a list of
    exceptions would always lack one. Errors that are raised on purpose pass unchanged.

    >>> with untrusted("config.json", ModelError):
    ...     float(10**400)
    Traceback (most recent call last):
        ...
    headstart.errors.ModelError: config.json is damaged: int too large to convert to float.
    """
    try:
        yield
    except HeadstartError:
        raise
    except MemoryError:
        raise error(f"{what} needs more memory than is available.") from None
    except Exception as exception:
        detail = f"no {exception}" if isinstance(exception, KeyError) else one_line(exception, 200)
        raise error(f"{what} is damaged: {detail.rstrip('.')}.") from None
