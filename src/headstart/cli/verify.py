"""headstart verify"""

from __future__ import annotations

from headstart.cli.options import JsonOption, ModelArgument, RunOptions
from headstart.cli.terminal import line, print_json
from headstart.errors import VerifyError


def verify(model: ModelArgument, as_json: JsonOption = False, run: RunOptions = RunOptions()) -> None:
    """Check that a model predicts the same on this machine."""
    from headstart.model import Predictor

    try:
        result = Predictor.load(model, run.compute).verify()
    except VerifyError as error:
        if as_json:
            print_json({"model": model, "error": str(error)})
        raise
    if as_json:
        print_json(
            {
                "model": model,
                "pictures": result.images,
                "difference": result.difference,
                "tolerance": result.tolerance,
                "distance": result.ood_difference,
                "changed": result.changed,
                "runtime": result.runtime.key,
            }
        )
        return
    changed = f", {result.changed} at a decision boundary with another class" if result.changed else ""
    print(
        line(
            f"{model} predicts as it should: {result.images} golden images, largest difference "
            f"{result.difference:.6f} ({result.tolerance:g} allowed){changed}, "
            f"{result.runtime.key} {result.runtime.version}"
        )
    )
