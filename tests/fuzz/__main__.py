"""Run the campaign, as ``python tests/fuzz``."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # so that this folder is the package ``fuzz``

if __name__ == "__main__":
    from fuzz.run import main

    main()
