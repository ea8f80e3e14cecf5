"""What is made of /proc/cpuinfo, and what of that is told to OpenBLAS."""

import logging
import os
import subprocess
import sys
import warnings

import pytest

from headstart import machine as processor

AVX512 = "avx512f avx512dq avx512cd avx512bw avx512vl"


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    """Let the processor be of a maker and have flags."""

    def be(maker, flags, count=2):
        one = f"processor\t: 0\nvendor_id\t: {maker}\nmodel name\t: X: Y\nflags\t\t: fpu {flags}\n\n"
        (tmp_path / "cpuinfo").write_text(one + one.replace("fpu", "other") * (count - 1))
        processor.processor.cache_clear()

    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    processor.processor.cache_clear()
    yield be
    processor.processor.cache_clear()


@pytest.mark.parametrize(
    ("maker", "flags", "bf16", "less"),
    [
        ("AuthenticAMD", f"{AVX512} avx512_bf16", True, True),
        ("AuthenticAMD", AVX512, False, True),
        ("AuthenticAMD", "avx2 avx512f", False, False),
        ("GenuineIntel", f"{AVX512} amx_bf16", True, False),
        ("GenuineIntel", "avx2", False, False),
    ],
)
@pytest.mark.parametrize("count", [1, 400])
def test_maker_and_flags_are_those_of_the_first_processor(cpuinfo, maker, flags, bf16, less, count):
    cpuinfo(maker, flags, count)
    assert processor.processor() == (maker, frozenset(["fpu", *flags.split()]))
    assert (processor.has_bf16(), processor.openblas_misses_avx512()) == (bf16, less)


def test_of_a_processor_that_says_nothing_nothing_is_assumed(cpuinfo, tmp_path):
    assert processor.processor() == ("", frozenset())  # no such file
    (tmp_path / "cpuinfo").write_bytes(b"Features\t: fp asimd\xff\n")
    processor.processor.cache_clear()
    assert processor.processor() == ("", frozenset())
    assert not processor.has_bf16()
    assert not processor.openblas_misses_avx512()


@pytest.mark.skipif(not processor.openblas_misses_avx512(), reason="the processor has no AVX-512, or OpenBLAS knows it")
@pytest.mark.parametrize(("given", "kernels"), [({}, "SkylakeX"), ({"OPENBLAS_CORETYPE": "HASWELL"}, "Haswell")])
def test_a_command_computes_with_the_kernels_of_the_processor(given, kernels):
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
    done = subprocess.run(
        [sys.executable, "-c", code], env={**inherited, **given}, check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == kernels


def test_frameworks_are_quiet_within_the_context_alone(capsys, caplog):
    def speak():
        print("printed")
        warnings.warn("warned", stacklevel=1)
        logging.getLogger("framework").error("logged")

    with processor.quiet_frameworks():
        speak()
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []
    with pytest.warns(UserWarning, match="warned"):
        speak()
    assert capsys.readouterr().out == "printed\n"
    assert [record.message for record in caplog.records] == ["logged"]
