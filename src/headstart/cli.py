"""The command line: parse, one public call, print.

Results go to standard output, progress and notes to standard error. Exit status 0: done; 1: done, but
``--strict`` and something was quarantined; 2: wrong input, told in one line.
"""

from __future__ import annotations

import csv
import gc
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart import __version__
from headstart.errors import HeadstartError, OptionError
from headstart.terminal import line, print_confusion, print_fit, print_json, progress_bar, tell_quarantine

if TYPE_CHECKING:
    from headstart.backbones import InputOptions

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A folder of pictures in, a trustworthy image classifier out: transfer learning without a training framework.",
)
backbones_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The networks whose features are used.")
app.add_typer(backbones_app, name="backbones")

RUNTIME_HELP = "auto, onnxruntime or openvino"
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print no progress and no notes.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="End with status 1 if a picture could not be read.")]
RuntimeOption = Annotated[str, typer.Option(help=f"What runs the network: {RUNTIME_HELP}.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, fp32 or bf16 (OpenVINO, where the processor has it).")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Threads; one a core unless given.")]
ProgressOption = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="Show progress; by default on a terminal only."),
]


def main() -> None:
    """The ``headstart`` command: errors raised on purpose become one line and status 2."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names in any script, any terminal
    try:
        app()
    except HeadstartError as error:
        print(f"headstart: {line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("headstart: stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        sys.stderr.close()
        sys.exit(0)
    finally:
        gc.freeze()  # else the interpreter searches all that is left for cycles before it ends: 0.06 s after a fit


def _version(wanted: bool) -> None:
    if wanted:
        print(f"headstart {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def fit(
    data: Annotated[str, typer.Argument(help="Folder, zip or tar, table (.csv, .parquet, .jsonl) or URL of these.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder to write.")] = Path("model"),
    backbone: Annotated[str, typer.Option(help="headstart-s or onnx:FILE.")] = "headstart-s",
    cut: Annotated[
        str, typer.Option(help="auto, a tap, or several with commas; any tensor of an onnx: graph.")
    ] = "auto",
    head: Annotated[str, typer.Option(help="auto, ridge, lda, centroid or logistic.")] = "auto",
    dropout: Annotated[float | None, typer.Option(help="Dropout rate of the ridge head, in closed form.")] = None,
    group_by: Annotated[str, typer.Option(help="auto (near duplicates), none, or a table's column.")] = "auto",
    validation: Annotated[str | None, typer.Option(help="Data set, or share of the groups to hold out.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="onnx: the input's mean, of RGB in 0..1.")] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="onnx: the input's deviation, of RGB in 0..1.")
    ] = None,
    channels: Annotated[str | None, typer.Option(help="onnx: RGB or BGR.")] = None,
    input_size: Annotated[str | None, typer.Option(metavar="N|HxW", help="onnx: input size in pixels.")] = None,
    crop: Annotated[float | None, typer.Option(help="onnx: share of the shorter side to keep.")] = None,
    resize: Annotated[str | None, typer.Option(help="onnx: shortest (crop the centre) or squash.")] = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    seed: Annotated[int, typer.Option(help="For what is drawn at random.")] = 0,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep features on disk.")] = True,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Learn to tell the classes of DATA apart, and write a model folder."""
    started = time.perf_counter()
    from headstart.bundle import check_target
    from headstart.classifier import ImageClassifier

    check_target(output)  # before the work, not after it
    classifier = ImageClassifier(
        backbone=backbone, cut=cut, head=head, dropout=dropout, group_by=group_by,
        validation=_validation(validation), runtime=runtime, precision=precision, workers=workers, seed=seed,
        input_options=_input_options(mean, std, channels, input_size, crop, resize), cache=cache,
    )  # fmt: skip
    with progress_bar("Reading features", quiet, progress) as report:
        classifier.fit(data, progress=report)
    folder = classifier.save(output)
    if not quiet:
        for note in classifier.notes_:
            print(line(f"note: {note}"), file=sys.stderr)
    tell_quarantine(classifier.quarantined_, quiet)
    if as_json:
        run = classifier.run_
        images = {**run["images"], "quarantined": len(run["images"]["quarantined"])}
        shown = {"model": folder, "classes": run["classes"], "images": images}
        keys = ("groups", "backbone", "cut", "head", "runtime", "accuracy", "seconds", "cache")
        print_json(shown | {key: run[key] for key in keys})
    else:
        print_fit(classifier, folder, time.perf_counter() - started)
    raise typer.Exit(1 if strict and classifier.quarantined_ else 0)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    pictures: Annotated[list[str], typer.Argument(help="Pictures, or folders, archives and tables of them.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values with a header.")] = False,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    strict: StrictOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Name the class of each picture, most probable first."""
    from headstart.classifier import load
    from headstart.datasets import from_pictures, join, open_dataset

    if as_json and as_csv:
        raise OptionError("--json and --csv exclude each other; give one.")
    classifier = load(model).set_params(runtime=runtime, precision=precision, workers=workers)
    dataset = from_pictures([p for p in pictures if not _holds_pictures(p)])
    for container in filter(_holds_pictures, pictures):
        dataset = join(dataset, open_dataset(container))
    with progress_bar("Predicting", quiet, progress) as report:
        found = classifier.answer(dataset, progress=report)
    writer = csv.writer(sys.stdout, lineterminator="\n") if as_csv else None
    if writer:
        writer.writerow(
            [
                "path",
                *(f"{kind}_{i + 1}" for i in range(min(top, len(found.classes))) for kind in ("class", "probability")),
            ]
        )
    for path, row in zip(found.paths, found.probabilities, strict=True):
        best = [(found.classes[i], float(row[i])) for i in row.argsort()[::-1][:top]]
        if as_json:
            print(
                json.dumps(
                    {"path": path, "classes": [{"class": c, "probability": p} for c, p in best]},
                    ensure_ascii=False,
                )
            )
        elif writer:
            writer.writerow([path, *(value for c, p in best for value in (c, f"{p:.6f}"))])
        else:
            print(line(f"{path}\t" + "\t".join(f"{c}\t{p:.1%}" for c, p in best)))
    if as_json:
        for refused in found.quarantined:
            print(json.dumps({"path": refused.path, "error": refused.reason}, ensure_ascii=False))
    tell_quarantine(found.quarantined, quiet)
    if not found.paths:
        raise typer.Exit(2)
    raise typer.Exit(1 if strict and found.quarantined else 0)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    data: Annotated[str, typer.Argument(help="Labelled pictures that had no part in training.")],
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Accuracy of MODEL on DATA with its interval, and which classes it confuses."""
    from headstart.classifier import load

    classifier = load(model).set_params(runtime=runtime, precision=precision, workers=workers)
    with progress_bar("Predicting", quiet, progress) as report:
        found = classifier.evaluate(data, progress=report)
    tell_quarantine(found.quarantined, quiet)
    if found.unknown and not quiet:
        names = ", ".join(found.unknown)
        print(line(f"note: the model does not know {names}; those pictures count as wrong."), file=sys.stderr)
    if as_json:
        print_json(
            {
                "model": model,
                "classes": list(found.classes),
                "images": {"count": len(found.paths), "quarantined": len(found.quarantined)},
                "accuracy": found.accuracy.to_dict(),
                "confusion": found.confusion.tolist(),
                "unknown_classes": list(found.unknown),
            }
        )
    else:
        print(f"Accuracy  {found.accuracy}")
        print_confusion(found.confusion, found.classes)
    raise typer.Exit(1 if strict and found.quarantined else 0)


@app.command()
def verify(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Replay the model's golden sample here: the same pictures must get the same answers."""
    from headstart.classifier import load

    found = load(model).set_params(runtime=runtime, precision=precision).verify()
    if as_json:
        print_json(
            {"model": model, "pictures": found.pictures, "difference": found.difference,
             "tolerance": found.tolerance, "changed": found.changed, "runtime": found.runtime.key}
        )  # fmt: skip
    else:
        changed = f", {found.changed} on the border with another class" if found.changed else ""
        print(
            line(
                f"{model} answers as it should: {found.pictures} golden pictures, largest difference "
                f"{found.difference:.6f} ({found.tolerance:g} allowed){changed}, "
                f"{found.runtime.key} {found.runtime.version}"
            )
        )


@app.command()
def sample(
    name: Annotated[str, typer.Argument(help="horses-or-humans.")],
    folder: Annotated[str, typer.Argument(help="A new or empty folder.")],
    train: Annotated[int, typer.Option(help="Training pictures.")] = 1000,
    validation: Annotated[int, typer.Option(help="Validation pictures, of other figures.")] = 256,
    seed: Annotated[int, typer.Option(help="Another seed, other pictures.")] = 0,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Render a labelled sample set: computer-generated horses and humans."""
    from headstart.samples import render

    with progress_bar("Rendering", quiet, progress) as report:
        count = render(name, folder, seed=seed, train=train, validation=validation, workers=workers, progress=report)
    print(line(f"{folder} holds {count} pictures; learn from them: headstart fit {folder}"))


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="horses-or-humans, cats-and-dogs-filtered, flower-photos or ants-bees.")],
    folder: Annotated[str, typer.Argument(help="A new or empty folder.")],
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a server that says nothing.")] = 30,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Fetch a public data set, check its hash and unpack it. A broken download goes on where it stopped."""
    from headstart.download import SETS
    from headstart.download import download as fetch

    with progress_bar("Downloading", quiet, progress, unit="MB", each=1e6) as report:
        hashes = fetch(name, folder, timeout=timeout, progress=report)
    if not quiet:
        for file in SETS[name].files:
            if file.sha256 is None:
                print(
                    line(f"note: nobody published a hash of {file.url}; what came has sha256 {hashes[file.url]}"),
                    file=sys.stderr,
                )
    print(line(f"{folder} holds {name} (licence: {SETS[name].licence}); learn from it: headstart fit {folder}"))


@backbones_app.command("list")
def list_backbones(as_json: JsonOption = False) -> None:
    """The backbones there are: what to write for --backbone."""
    from headstart.backbones import AVAILABLE

    if as_json:
        print_json([{"id": name, "what": what} for name, what in AVAILABLE.items()])
        return
    for name, what in AVAILABLE.items():
        print(line(f"{name:12} {what}"))


@backbones_app.command("show")
def show_backbone(
    backbone: Annotated[str, typer.Argument(help="headstart-s or onnx:FILE.")],
    as_json: JsonOption = False,
) -> None:
    """What a backbone takes, and the taps at which it can be cut."""
    from headstart.backbones import load

    found = load(backbone)
    taps = [{"name": t.name, "channels": t.channels, "depth": round(t.depth, 4), "size": t.size} for t in found.taps]
    if as_json:
        print_json(
            {"id": found.id, "sha256": found.sha256, "licence": found.licence, "source": found.source,
             "preprocess": found.preprocess.to_dict(), "taps": taps, "notes": list(found.notes)}
        )  # fmt: skip
        return
    for note in found.notes:
        print(line(f"note: {note}"), file=sys.stderr)
    size = found.preprocess
    print(f"{found.id}: {size.height} x {size.width} pixels, licence {found.licence}")
    print(f"{'tap':32} {'channels':>8} {'map':>9} {'depth':>6}")
    for tap in found.taps:
        area = f"{tap.size[0]} x {tap.size[1]}" if tap.size else "-"
        print(line(f"{tap.name:32} {tap.channels:8} {area:>9} {tap.depth:6.0%}"))


def _holds_pictures(path: str) -> bool:
    from headstart.images import is_picture_name

    return Path(path).is_dir() or ("." in Path(path).name and not is_picture_name(path) and Path(path).exists())


def _validation(value: str | None) -> str | float | None:
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return value


def _input_options(
    mean: str | None,
    std: str | None,
    channels: str | None,
    size: str | None,
    crop: float | None,
    resize: str | None,
) -> InputOptions | None:
    if all(value is None for value in (mean, std, channels, size, crop, resize)):
        return None
    from headstart.backbones import InputOptions

    return InputOptions(
        mean=_three(mean, "--mean"), std=_three(std, "--std"), channels=channels, size=_size(size), crop=crop,
        resize=resize,
    )  # fmt: skip


def _three(text: str | None, name: str) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise OptionError(f"{name} {text!r} cannot be read; expected three numbers like 0.485,0.456,0.406.")
    return (numbers[0], numbers[1], numbers[2])


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdecimal() for part in parts):
        raise OptionError(
            f"--input-size {text!r} cannot be read; expected pixels like 160, or height x width like 160x224."
        )
    return (int(parts[0]), int(parts[-1]))
