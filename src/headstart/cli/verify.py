"""headstart verify"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.options import CONDITION_FAILED, JsonOption, RunOptions, run_option
from headstart.cli.terminal import line, print_json, print_notes
from headstart.errors import VerifyError


def verify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder, or an export.")],
    as_json: JsonOption = False,
    run: RunOptions = RunOptions(),
    strict: Annotated[
        bool, run_option("--strict", help="An export: exit with status 1, too, if something was not proven here.")
    ] = False,
) -> None:
    """Check that a model or an export predicts the same here."""
    from headstart.files import recover_folder

    recover_folder(Path(model))
    if (Path(model) / "parity.json").is_file():
        _verify_export(model, as_json, strict)
        return
    from headstart.model import Predictor

    try:
        predictor = Predictor.load(model, run.compute)
        result = predictor.verify()
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
    other = "other labels" if predictor.model.is_multi_label else "another class"
    changed = f", {result.changed} at a decision boundary with {other}" if result.changed else ""
    print(
        line(
            f"{model} predicts as it should: {result.images} golden images, largest difference "
            f"{result.difference:.6f} ({result.tolerance:g} allowed){changed}, "
            f"{result.runtime.key} {result.runtime.version}"
        )
    )


def _verify_export(folder: str, as_json: bool, strict: bool) -> None:
    from headstart.cli.export import describe
    from headstart.export import verify_export

    result = verify_export(Path(folder))
    if as_json:
        print_json(
            {
                "export": folder,
                "to": result.about.to,
                "precision": result.about.precision,
                "runtime": result.runtime or None,
                "proof": None if result.proof is None else result.proof.to_dict(),
                "problems": list(result.problems),
                "not_proven": [{"what": what, "command": command} for what, command in result.not_proven],
            }
        )
    elif result.proof is not None:
        print(line(f"{folder} ({result.about.to}, {result.about.precision}), {result.runtime}:"))
        for comparison in result.proof.comparisons:
            print(line(describe(comparison)))
        print_notes(result.proof.remarks)
    if not as_json:
        for what, command in result.not_proven:
            print(line(f"Not proven here: {what}; run: {command}"))
    if result.problems:
        raise VerifyError(f"{folder} does not answer as it should: {'; '.join(result.problems)}")
    if result.not_proven and strict:
        raise typer.Exit(CONDITION_FAILED)
