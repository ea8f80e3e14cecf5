"""The processor as read from /proc/cpuinfo, the kernels of OpenBLAS, and quiet frameworks."""

import logging
import os
import subprocess
import sys
import warnings

import pytest

from headstart import machine

AVX512 = "avx512f avx512dq avx512cd avx512bw avx512vl"


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    """A function that writes a /proc/cpuinfo with this maker and these flags."""

    def write(maker, flags, count=2):
        entry = f"processor\t: 0\nvendor_id\t: {maker}\nmodel name\t: X: Y\nflags\t\t: fpu {flags}\n\n"
        (tmp_path / "cpuinfo").write_text(entry + entry.replace("fpu", "other") * (count - 1))
        machine.processor.cache_clear()

    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    machine.processor.cache_clear()
    yield write
    machine.processor.cache_clear()


@pytest.mark.parametrize(
    ("maker", "flags", "has_bf16", "misses_avx512"),
    [
        ("AuthenticAMD", f"{AVX512} avx512_bf16", True, True),
        ("AuthenticAMD", AVX512, False, True),
        ("AuthenticAMD", "avx2 avx512f", False, False),
        ("GenuineIntel", f"{AVX512} amx_bf16", True, False),
        ("GenuineIntel", "avx2", False, False),
    ],
)
@pytest.mark.parametrize("count", [1, 400])
def test_maker_and_flags_are_those_of_the_first_processor(cpuinfo, maker, flags, has_bf16, misses_avx512, count):
    cpuinfo(maker, flags, count)
    assert machine.processor() == (maker, frozenset(["fpu", *flags.split()]))
    assert (machine.has_bf16(), machine.openblas_misses_avx512()) == (has_bf16, misses_avx512)


def test_nothing_is_assumed_of_an_unknown_processor(cpuinfo, tmp_path):
    assert machine.processor() == ("", frozenset())  # no such file
    (tmp_path / "cpuinfo").write_bytes(b"flags\t: fp ne\xff\n")
    machine.processor.cache_clear()
    assert machine.processor() == ("", frozenset(["fp", "ne\ufffd"]))
    assert not machine.has_bf16()
    assert not machine.openblas_misses_avx512()


def test_the_instructions_of_an_arm_processor_are_told_apart(cpuinfo, tmp_path, monkeypatch):
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp bf16 sve\n\nprocessor\t: 1\n")
    assert machine.instruction_set() == "aarch64 asimd asimddp bf16 sve"
    assert not machine.has_bf16()  # only that of x86 was measured


@pytest.mark.skipif(not machine.openblas_misses_avx512(), reason="the processor has no AVX-512, or OpenBLAS knows it")
@pytest.mark.parametrize(("variables", "kernels"), [({}, "SkylakeX"), ({"OPENBLAS_CORETYPE": "HASWELL"}, "Haswell")])
def test_a_command_computes_with_the_kernels_of_the_processor(variables, kernels):
    code = """
import contextlib, sys
from headstart.cli import main
sys.argv = ["headstart", "--version"]
with contextlib.suppress(SystemExit):
    main()
import numpy, threadpoolctl
print(*(pool["architecture"] for pool in threadpoolctl.threadpool_info() if pool["internal_api"] == "openblas"))
"""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS")}
    completed = subprocess.run(
        [sys.executable, "-c", code], env={**inherited, **variables}, check=True, capture_output=True, text=True
    )
    assert completed.stdout.splitlines()[-1] == kernels


def test_a_process_that_ends_early_waits_for_what_is_imported_meanwhile(tmp_path):
    """Else a library written in C++ is imported while the interpreter ends, and aborts it now and then."""
    (tmp_path / "slow_library.py").write_text("import time\ntime.sleep(0.5)\nprint('imported', flush=True)\n", "utf-8")
    code = "import sys; from headstart.machine import *; import_in_background(['no_such', 'slow_library']); sys.exit(2)"
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    completed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert (completed.returncode, completed.stdout, completed.stderr) == (2, "imported\n", "")


def test_frameworks_are_quiet_within_the_context_alone(capsys, caplog):
    def make_noise():
        print("printed")
        warnings.warn("warned", stacklevel=1)
        logging.getLogger("framework").error("logged")

    with machine.quiet_frameworks():
        make_noise()
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []
    with pytest.warns(UserWarning, match="warned"):
        make_noise()
    assert capsys.readouterr().out == "printed\n"
    assert [record.message for record in caplog.records] == ["logged"]
