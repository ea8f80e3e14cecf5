"""The machine: its processor and cores, its cache folder, what its system does with folders, and the own process."""

from __future__ import annotations

import faulthandler
import gc
import io
import os
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Thread
from types import ModuleType

from headstart.errors import OptionError

SYSTEM_FILES = {  # what operating systems, cameras and servers leave in folders, in lower case
    "#recycle",
    "$recycle.bin",
    ".directory",
    ".ds_store",
    ".localized",
    "@eadir",
    "__macosx",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "lost+found",
    "picasa.ini",
    "system volume information",
    "thumbs.db",
    "zbthumbnail.info",
}

CPUINFO = Path("/proc/cpuinfo")
CPUINFO_CHARACTERS = 8192  # the first processor of maybe hundreds, whose lines would take longer to read than a command
AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}  # what OpenBLAS's kernels for it use
VECTOR_INSTRUCTIONS = (  # of those in /proc/cpuinfo
    *(
        "avx2",
        "fma",
        "avx_vnni",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_tile",
        "amx_bf16",
        "amx_int8",
    ),
    *("asimd", "asimddp", "bf16", "i8mm", "sve"),
)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's mallopt


def is_left_by_system(path: Path) -> bool:
    """Return whether a file is one that the system leaves in folders that it shows: Finder, say, a .DS_Store."""
    is_known = path.name.casefold() in SYSTEM_FILES or path.name.startswith("._")
    return is_known and path.is_file() and not path.is_symlink()


def why_not_writable(path: Path) -> str | None:
    """Return why a file or folder of this name cannot be written, as far as can be told beforehand; None if it can.

    What is written beside it first needs the right to write into the folder that it lies in, or into the first folder
    above that is there.
    """
    path = path.absolute()
    folder = next((above for above in path.parents if os.path.lexists(above)), None)
    if folder is None:  # a drive that is not there, or the root
        return f"there is no folder for it at {path.anchor}"
    if not folder.is_dir():
        return f"{folder} is no folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"nothing can be written in {folder}"
    return None


def why_not_replaceable(path: Path) -> str | None:
    """Return why no new folder can take the place of ``path``, as far as can be told beforehand; None if it can."""
    if reason := why_not_writable(path):
        return reason
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        return "it is a link, or no folder"
    if path.absolute().is_mount():  # of a relative one pathlib compares "." with itself
        return "another disk is mounted there, which cannot be replaced, but a folder in it can"
    if path.exists() and path.samefile(os.curdir):
        return "the command runs in this folder, which cannot be replaced then"
    return why_not_writable(path / "a file") if path.exists() else None


@contextmanager
def one_at_a_time(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Let one process of this machine at a time work in a folder, where the system and its file system have locks.

    The lock ends with the process, however that ends, and leaves no file. Where another process works there, ``wait``
    until it has ended, or raise OptionError.
    """
    try:
        import fcntl

        opened = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Windows; or it is gone, as who works there will see
        yield
        return
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OptionError(
                f"Another process is writing to {folder}; wait until it has ended and run the same command again, or "
                "give another name with -o."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(opened)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def processor() -> tuple[str, frozenset[str]]:
    """Return the processor's vendor, such as "AuthenticAMD", and its flags, such as "avx512f".

    Read from /proc/cpuinfo, which calls the flags "Features" on ARM and names no vendor there; on other systems than
    Linux the vendor is empty and there are no flags.
    """
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(CPUINFO_CHARACTERS).splitlines()
    except OSError:
        return "", frozenset()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    return fields.get("vendor_id", ""), frozenset(fields.get("flags", fields.get("Features", "")).split())


def instruction_set() -> str:
    """Return the parts of the processor's instruction set on which libraries choose how they multiply.

    Features of one image that two machines compute with the same library are the same only where this is.
    """
    flags = processor()[1]
    found = [name for name in VECTOR_INSTRUCTIONS if name in flags]
    return " ".join([platform.machine(), *found])


def has_bf16() -> bool:
    """Return whether the processor multiplies bf16 itself. Elsewhere it is emulated, and slower than fp32."""
    return bool({"avx512_bf16", "amx_bf16"} & processor()[1])


def cuda_devices() -> int:
    """Return how many GPUs NVIDIA's driver shows to this process; 0 without it."""
    import ctypes

    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        is_shown = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except (OSError, AttributeError):
        return 0
    return count.value if is_shown else 0


def openblas_misses_avx512() -> bool:
    """Return whether OpenBLAS (0.3.31) does not recognise this processor's AVX-512, as on AMD's Zen 5."""
    vendor, flags = processor()
    return vendor == "AuthenticAMD" and flags >= AVX512


def cache_folder() -> Path:
    """Return the folder of what can be made again.

    ``$HEADSTART_CACHE``, else ``$XDG_CACHE_HOME/headstart``, else ``~/.cache/headstart``. Raises OSError where there is
    none of these.
    """
    if folder := os.environ.get("HEADSTART_CACHE"):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headstart"
    except RuntimeError:
        raise OSError("this user has no home folder: set HEADSTART_CACHE to a writable folder") from None


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off, unless the user has set ORT_DISABLE_TELEMETRY.

    From 1.29 on it otherwise writes a device id to the home folder as soon as it is imported, and sends events.
    """
    previous = os.environ.get("ORT_DISABLE_TELEMETRY")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return import_module("onnxruntime")
    finally:
        if previous is None:
            del os.environ["ORT_DISABLE_TELEMETRY"]


def single_threaded_blas() -> AbstractContextManager[object]:
    """Return a context in which linear algebra runs on one thread.

    Within several threads of ours, those of BLAS would wait for each other by spinning, which on a busy machine made a
    fit ten times slower.
    """
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1, "blas")
    return limits


def separate_output() -> None:
    """Keep what libraries written in C print, past Python, out of the command's output. For the command line alone.

    ``sys.stdout`` and ``sys.stderr`` go on writing to where they did, through descriptors of their own; descriptors 1
    and 2, to which libtiff and others write, lead nowhere. Where the user asked for the warnings of libraries
    (``python -W``, PYTHONWARNINGS), they lead to standard error.
    """
    try:
        own = {name: os.dup(getattr(sys, name).fileno()) for name in ("stdout", "stderr") if getattr(sys, name)}
    except (OSError, ValueError):  # a stream of someone who runs the command within another program
        return
    for name, descriptor in own.items():
        old = getattr(sys, name)
        old.flush()
        new = io.TextIOWrapper(
            os.fdopen(descriptor, "wb", 0 if old.write_through else -1),  # PYTHONUNBUFFERED
            old.encoding,
            old.errors,
            line_buffering=old.line_buffering,
            write_through=old.write_through,
        )
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)  # whose descriptors are asked for the width of the terminal
    if "stderr" in own:
        faulthandler.enable(own["stderr"])  # a crash of a library is not silent
    others = own["stderr"] if sys.warnoptions and "stderr" in own else os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(others, descriptor)


def tune_process() -> None:
    """Set what libraries read when they are first imported. For the command line alone; what a user has set stays."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # of ONNX Runtime: a device id in the home folder, and events
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Imports create many objects that stay: searching all of them for cycles, time and again, takes a fit 0.06 s.
    gc.set_threshold(200_000)
    # OpenBLAS's threads wait for more work by spinning, on a core that others need: a fit takes 0.09 s less where they
    # sleep at once (2^4 cycles).
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    if openblas_misses_avx512():  # with these kernels matrix products take 0.6 of the time, eigenvectors 0.8
        os.environ.setdefault("OPENBLAS_CORETYPE", "SKYLAKEX")
    # OpenVINO imports its model converter, with telemetry, wherever it is installed: 0.02 s for what no command uses.
    # With None in its place the import fails as if it were not installed.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]


def return_freed_memory() -> None:
    """Give freed blocks of a megabyte back to the system at once (glibc; elsewhere nothing changes).

    For commands that read many images. By default glibc keeps, for each thread, blocks up to the size of the largest
    ever freed, and matrices that come and go in several threads hold half as much memory again as is in use.
    """
    import ctypes  # not needed by every command

    with suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)


def keep_freed_memory() -> None:
    """Keep freed memory for the next allocation, the opposite of ``return_freed_memory``. For the command line alone.

    For training, which allocates the same large maps in every step: fetching their pages from the system anew takes as
    long as computing them.
    """
    import ctypes

    with suppress(OSError, TypeError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def import_in_background(modules: Sequence[str]) -> None:
    """Import modules in a thread while other work goes on; one that cannot be imported fails where it is needed.

    A command that ends earlier waits for it: a library written in C++ aborts the process where it is imported while
    the interpreter ends.
    """

    def import_all() -> None:
        for name in modules:
            with suppress(Exception):
                import_module(name)

    Thread(target=import_all).start()


@contextmanager
def quiet_frameworks() -> Iterator[None]:
    """Silence what deep learning frameworks log, warn and print.

    For the command line alone: it acts on the whole process. Standard output is for results, so what is printed there
    goes to standard error if that is a terminal, else nowhere.
    """
    import logging  # not imported by every command

    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
