"""What the processor is and can do, as Linux tells it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
FIRST = 8192  # characters: the first of maybe hundreds, whose lines would take longer to read than a command to run
AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}  # what OpenBLAS's kernels for it use


@cache
def processor() -> tuple[str, frozenset[str]]:
    """Its maker, such as "AuthenticAMD", and flags, such as "avx512f"; ("", none) where they cannot be told."""
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(FIRST).splitlines()
    except OSError:
        return "", frozenset()
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    return told.get("vendor_id", ""), frozenset(told.get("flags", "").split())


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself. Elsewhere it would be emulated, and slower than fp32."""
    return bool({"avx512_bf16", "amx_bf16"} & processor()[1])


def taken_for_less() -> bool:
    """Whether OpenBLAS takes the processor for one without AVX-512 that it has (0.3.31: AMD's Zen 5)."""
    maker, flags = processor()
    return maker == "AuthenticAMD" and flags >= AVX512
