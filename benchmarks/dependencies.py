"""What the packages of an environment weigh on disk, the heaviest first.

    python benchmarks/dependencies.py [SITE_PACKAGES]

By the files that each package lists, without what Python compiles from them later.
"""

import sys
import sysconfig
from importlib import metadata
from pathlib import Path

SMALLEST = 1.0  # MB


def size(package: metadata.Distribution) -> int:
    """Return the bytes of the files of a package, without compiled modules."""
    files = [Path(str(package.locate_file(file))) for file in package.files or [] if not str(file).endswith(".pyc")]
    return sum(file.stat().st_size for file in files if file.is_file())


def main(folder: str) -> None:
    sizes = {package.metadata["Name"]: size(package) / 1e6 for package in metadata.distributions(path=[folder])}
    small = [name for name, megabytes in sizes.items() if megabytes < SMALLEST]
    for name, megabytes in sorted(sizes.items(), key=lambda item: -item[1]):
        if name not in small:
            print(f"{megabytes:7.1f}  {name}")
    print(f"{sum(sizes[name] for name in small):7.1f}  {len(small)} smaller ones")
    print(f"{sum(sizes.values()):7.1f}  all")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("purelib"))
