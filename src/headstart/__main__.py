"""The ``headstart`` command, also as ``python -m headstart``."""

import sys


def main() -> None:
    """Run the command line. An interrupt while it is being imported ends like a later one."""
    try:
        from headstart.machine import separate_output

        separate_output()
        from headstart.cli import main as run
    except KeyboardInterrupt:
        print("headstart: interrupted.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
