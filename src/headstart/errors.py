"""The errors Headstart raises on purpose.

    HeadstartError
    ├── OptionError         an option has a value that cannot be used           (also a ValueError)
    ├── DataError           the pictures, labels or splits cannot be learned from
    │   └── ImageError      one picture cannot be read; its text is the reason in the quarantine
    ├── BackboneError       a network cannot be read, cut or run
    ├── CacheError          the feature cache cannot be read or written
    ├── DownloadError       bytes did not arrive, or were not the promised ones
    ├── ModelError          a model folder is damaged, hostile or newer than this version
    │   └── VerifyError     the golden sample gives other answers on this machine
    └── MissingExtraError   an optional package is not installed                (also an ImportError)

Every message is one line: what happened, what was expected, how to mend it. The command line prints it and
ends with status 2; anything that is not a ``HeadstartError`` is a bug and keeps its traceback.
"""


class HeadstartError(Exception):
    """Base of every error raised on purpose."""


class OptionError(HeadstartError, ValueError):
    """An option has a value that cannot be used."""


class DataError(HeadstartError):
    """The pictures, labels or splits cannot be learned from."""


class ImageError(DataError):
    """One picture cannot be read. Its text is the reason shown in the quarantine."""


class BackboneError(HeadstartError):
    """A network cannot be read, cut or run."""


class CacheError(HeadstartError):
    """The feature cache cannot be read or written."""


class DownloadError(HeadstartError):
    """Bytes did not arrive, or were not the promised ones."""


class ModelError(HeadstartError):
    """A model folder is damaged, hostile or newer than this version."""


class VerifyError(ModelError):
    """The golden sample gives other answers on this machine than where the model was made."""


class MissingExtraError(HeadstartError, ImportError):
    """An optional package is not installed."""
