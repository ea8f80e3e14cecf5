"""Fine-tuning on an accelerator, before a change and after it: whole process, seconds an epoch, images a second.

    python benchmarks/fine_tune_device.py --before SRC --data ants-bees --weights FILE [--parts runs,speed,...]

``--before`` is the folder ``src`` of another version. Both run in this environment, which needs the extras ``torch``
and ``timm`` and the other dependencies of Headstart, but not Headstart. ``--data`` holds train/ and val/ of ants-bees,
``--weights`` is mobilenetv2-imagenet.safetensors. On a GPU all parts take about six minutes; ``--images 24 --epochs 1
--batch-sizes 8`` tries the script on a processor.

runs      ``headstart fine-tune --unfreeze-from all --epochs 6 --batch-size 32`` on ants-bees, each line with the
          seconds since its process started; libraries are imported once before, so that their files are in memory
speed     images a second of an epoch of training on generated images, without evaluation, beside a plain PyTorch loop
          in bf16 with the images on the device and mirrored there, each at its best batch
proof     this version alone: gradients as recorded against those computed step by step, views made on the device
          against those of Pillow, predictions in batches of 256 against those one by one
phases    this version alone: the same run with the seconds of its steps, and those of all its processors together
kinds     PyTorch alone: seconds of the first passes of MobileNetV2's convolutions, by their kind
layouts   PyTorch alone: three networks with channels last and with channels first, each in a process: seconds of the
          first evaluation and the first training step, and images a second of steps that are recorded and replayed
provider  features of the CUDA provider of ONNX Runtime against those of the processor, where it is installed
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

SOURCE = Path(__file__).resolve().parent.parent / "src"
BACKBONE = "timm:mobilenetv2_100?pad_type=same&num_classes=1001"
HALF = (0.5, 0.5, 0.5)


def start(source: Path, cache: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python of this environment with the packages of ``source`` before its own."""
    path = os.pathsep.join(filter(None, (str(source.resolve()), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "HEADSTART_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def show_output(process: subprocess.Popen[str], label: str) -> float:
    """Print what a process prints, with the seconds since now; return the seconds until it ends."""
    begin = time.perf_counter()
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{label} {time.perf_counter() - begin:7.2f} {line.rstrip()[:230]}", flush=True)
    status, seconds = process.wait(), time.perf_counter() - begin
    print(f"{label} {seconds:7.2f} ended with status {status}", flush=True)
    return seconds


def run_command(source: Path, label: str, arguments: argparse.Namespace, folder: Path) -> float:
    """Run ``headstart fine-tune`` with an empty cache."""
    output = folder / f"model-{label}"
    command = ["-m", "headstart", *fine_tune_command(arguments, output)]
    seconds = show_output(start(source, folder / f"cache-{label}", *command), label)
    shutil.rmtree(output, ignore_errors=True)
    return seconds


def fine_tune_command(arguments: argparse.Namespace, output: Path) -> list[str]:
    """Return the arguments of ``headstart``."""
    options = ["--backbone", BACKBONE, "--weights", arguments.weights, "--mean", ".5,.5,.5", "--std", ".5,.5,.5"]
    training = ["--unfreeze-from", "all", "--epochs", arguments.epochs, "--batch-size", 32, "-o", output]
    return [str(part) for part in ("fine-tune", arguments.data, *options, *training)]


def write_images(folder: Path, count: int) -> Path:
    """Write generated images of two classes: coarse noise, tinted by the class."""
    generator = np.random.default_rng(0)
    for i in range(count):
        target = folder / "train" / ("warm", "cold")[i % 2]
        target.mkdir(parents=True, exist_ok=True)
        noise = generator.integers(0, 200, (16, 16, 3))
        noise[..., 0 if i % 2 else 2] += 40
        Image.fromarray(noise.astype(np.uint8)).resize((256, 256), Image.Resampling.BICUBIC).save(target / f"{i}.jpg")
    return folder


def prepare(arguments: argparse.Namespace, data: Path, batch_size: int, precision: str = "auto", epochs: int = 3):
    """Fit, and prepare a training of all layers, as ``fine_tune`` does."""
    import headstart as hs
    from headstart.finetune import FineTuneConfig
    from headstart.finetune.frozen_fit import frozen_fit
    from headstart.finetune.run import _prepare

    input_options = hs.InputOptions(weights=str(arguments.weights), mean=HALF, std=HALF)
    result = hs.fit_dataset(hs.open_dataset(data), hs.FitOptions(BACKBONE, input_options, cut="features", head="ridge"))
    config = FineTuneConfig(epochs=epochs, batch_size=batch_size, unfreeze_from="all", precision=precision)
    return _prepare(frozen_fit(result), config, print, 3)


def measure_training(arguments: argparse.Namespace) -> None:
    """Print the images a second of the version that is imported, as it begins trainings of 3 epochs and of 30."""
    from itertools import islice, product

    from headstart.finetune.loop import NO_ROWS, State, train

    for epochs, batch_size in product((3, 30), arguments.batch_sizes):
        begin = time.perf_counter()
        setup = prepare(arguments, arguments.data, batch_size, epochs=epochs)
        prepared = time.perf_counter() - begin
        setup.task.network.load_state_dict(setup.plan.initial)
        rows = np.arange(len(setup.task.labels))
        seconds = [epoch.seconds for epoch in islice(train(setup.task, setup.plan, rows, NO_ROWS, State()), 3)]
        speed = f"{len(rows) / min(seconds):.0f} images/s; prepared in {prepared:.1f} s, epochs {np.round(seconds, 2)}"
        print(f"{epochs} epochs, batches of {batch_size}: {speed}")


def measure_plain_loop(arguments: argparse.Namespace) -> None:
    """Print the images a second of a plain loop: bf16, channels-last, images on the device, batch norms in training."""
    import timm
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = np.random.default_rng(0)
    pixels = torch.from_numpy(generator.integers(0, 256, (arguments.images, 3, 224, 224), np.uint8)).to(device)
    labels = torch.arange(arguments.images, device=device) % 2
    for batch_size in arguments.batch_sizes:
        network = timm.create_model("mobilenetv2_100", num_classes=2).to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.train().parameters(), lr=3e-4)
        seconds = []
        for _ in range(3):
            begin = time.perf_counter()
            for rows in torch.randperm(arguments.images, device=device).split(batch_size):
                batch = (pixels[rows].float() / 127.5 - 1).to(memory_format=torch.channels_last)
                batch = torch.where(
                    (torch.rand(len(rows), device=device) < 0.5)[:, None, None, None], batch.flip(3), batch
                )
                optimizer.zero_grad()
                with torch.autocast(device.type, torch.bfloat16):
                    scores = network(batch)
                torch.nn.functional.cross_entropy(scores.float(), labels[rows]).backward()
                optimizer.step()
            float(scores.detach()[0, 0])  # waits for the device
            seconds.append(time.perf_counter() - begin)
        print(f"batches of {batch_size}: {arguments.images / min(seconds):.0f} images/s; epochs {np.round(seconds, 2)}")


def prove(arguments: argparse.Namespace) -> None:
    """Print how far what the device computes is from what is computed otherwise."""
    import torch

    from headstart.finetune import loop
    from headstart.finetune.device_images import to_device, warp_batch
    from headstart.finetune.freeze import enable_gradients
    from headstart.finetune.gradients import Loss, compute_gradients
    from headstart.finetune.image_loader import Views
    from headstart.finetune.precision import MixedPrecision

    setup = prepare(arguments, arguments.data, 8, "fp32")
    task, network, device = setup.task, setup.task.network, setup.task.device
    print(f"device {device}, recordings {task.recorder.recording is not None}")
    parameters = list(enable_gradients(network, setup.plan, setup.plan).values())
    loss = Loss(MixedPrecision.of("fp32", device.type), torch.tensor([0.7, 1.3], device=device), 0.0)
    for size in (8, 5):
        [batch] = loop.local_batches(task, [np.arange(size)], 1)
        results = []
        for compute in (
            lambda b: loop.compute_step_gradients(task, b, loss, parameters, loop.State()),
            lambda b: compute_gradients(network, b, loss, None),
        ):
            totals = [float(total) for total in compute(batch)]
            results.append((totals, torch.cat([p.grad.reshape(-1) for p in parameters]).clone()))
        (recorded_totals, recorded), (totals, gradient) = results
        difference = float((recorded - gradient).norm() / gradient.norm())
        print(
            f"{size} images: sums {recorded_totals} and {totals}, relative difference of the gradients {difference:.1e}"
        )
    pixels = np.stack([task.images.load(row) for row in range(8)])
    views = Views.draw("lesson", len(task.labels), task.images.size, 0, 1)
    expected = np.stack([views.apply(pixels[row], row) for row in range(8)]).astype(int)
    levels = warp_batch(to_device(pixels, device), views, np.arange(8)).cpu().numpy() - expected
    print(f"views on the device: largest difference {np.abs(levels).max()} levels, mean {np.abs(levels).mean():.4f}")
    rows = np.arange(min(300, len(task.labels)))
    together = loop._predict(task, rows, 256)[0]
    alone = loop._predict(task, rows[:20], 1)[0]
    print(f"scores in batches of 256 and 1: largest difference {np.abs(together[:20] - alone).max():.1e}")


def show_phases(arguments: argparse.Namespace) -> None:
    """Run ``headstart fine-tune`` in this process, and print when its steps began and ended."""
    import importlib

    begin = time.perf_counter()

    def timed(name: str, function):
        def call(*values, **options):
            start, processors = time.perf_counter(), time.process_time()
            try:
                return function(*values, **options)
            finally:
                end, processors = time.perf_counter(), time.process_time() - processors
                seconds = f"{end - start:.2f} s, of processors {processors:.2f}"
                print(f"{name}: {start - begin:.2f} to {end - begin:.2f}, {seconds}", file=sys.stderr)

        return call

    for module_name, names in PHASES.items():
        module = importlib.import_module(module_name)
        print(f"{module_name} imported at {time.perf_counter() - begin:.2f}", file=sys.stderr)
        for name in names:
            *path, last = name.split(".")
            owner = module
            for part in path:
                owner = getattr(owner, part)
            setattr(owner, last, timed(name, getattr(owner, last)))
    from headstart.cli import app

    with tempfile.TemporaryDirectory() as folder:
        try:
            app(fine_tune_command(arguments, Path(folder) / "model"))
        finally:
            print(f"whole process: of processors {time.process_time():.2f} s", file=sys.stderr)


def prove_provider(arguments: argparse.Namespace) -> None:
    """Print how far features of the CUDA provider are from those of the processor."""
    import onnxruntime

    import headstart as hs

    print(onnxruntime.get_available_providers())
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        print("ONNX Runtime has no CUDA provider here")
        return
    backbone = hs.backbones.load(BACKBONE, options=hs.InputOptions(weights=str(arguments.weights), mean=HALF, std=HALF))
    dataset = hs.open_dataset(arguments.data)
    vectors = []
    for runtime in ("onnxruntime-cuda", "onnxruntime"):
        begin = time.perf_counter()
        features = hs.features.embed(dataset, backbone, hs.Compute(runtime))
        vectors.append(features.matrix(("features",), np.arange(len(features.index))).astype(np.float32))
        print(f"{runtime}: {time.perf_counter() - begin:.2f} s")
    difference = np.abs(vectors[0] - vectors[1]).max() / np.abs(vectors[1]).max()
    print(f"largest difference, as a share of the largest value: {difference:.1e}")


def measure_kinds(_: argparse.Namespace) -> None:
    """Print the seconds of the first passes of every convolution of MobileNetV2, added up by kind."""
    import timm
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    network = timm.create_model("mobilenetv2_100", num_classes=0).eval()
    shapes: dict[tuple, torch.nn.Conv2d] = {}

    def note(layer: torch.nn.Module, images: tuple[torch.Tensor, ...]) -> None:
        if isinstance(layer, torch.nn.Conv2d):
            shapes.setdefault((str(layer), images[0].shape[1:]), layer)

    hooks = [layer.register_forward_pre_hook(note) for layer in network.modules()]
    network(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    seconds: dict[tuple[str, str], float] = {}
    for kind, is_training in (("bf16", True), ("fp32", False)):
        for (_, shape), layer in shapes.items():
            what = "depthwise" if layer.groups > 1 else "1 x 1" if layer.kernel_size == (1, 1) else "first layer"
            layer.to(device, memory_format=torch.channels_last)
            images = torch.rand(32, *shape, device=device).to(memory_format=torch.channels_last)
            images.requires_grad_(is_training)
            wait()
            begin = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=is_training), torch.set_grad_enabled(is_training):
                output = layer(images)
            wait()
            middle = time.perf_counter()
            seconds[what, f"forwards, {kind}"] = seconds.get((what, f"forwards, {kind}"), 0) + middle - begin
            if is_training:
                output.float().sum().backward()
                wait()
                spent = time.perf_counter() - middle
                seconds[what, f"backwards, {kind}"] = seconds.get((what, f"backwards, {kind}"), 0) + spent
    for (what, passes), spent in seconds.items():
        print(f"{what}, {passes}: {spent:.2f} s")


def measure_layout(arguments: argparse.Namespace, layout: str) -> None:
    """Print how soon a network in one layout evaluates and trains for the first time, and how fast it trains."""
    import timm
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    memory_format = getattr(torch, layout)
    for name in ("mobilenetv2_100", "convnext_tiny", "resnet50"):
        network = timm.create_model(name, num_classes=0).eval().to(device, memory_format=memory_format)
        images = torch.rand(max(arguments.batch_sizes), 3, 224, 224, device=device).to(memory_format=memory_format)

        def evaluate(network=network, images=images) -> None:
            with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                network(images[:128])

        def step(size: int, network=network, images=images) -> None:
            network.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16):
                network(images[:size]).float().square().mean().backward()

        def timed(compute, *values) -> float:
            wait()
            begin = time.perf_counter()
            compute(*values)
            wait()
            return time.perf_counter() - begin

        first = [timed(evaluate), *(timed(step, size) for size in arguments.batch_sizes)]
        speeds = []
        for size in arguments.batch_sizes:
            replay = step_of_recording(step, size) if device.type == "cuda" else lambda size=size: step(size)
            replay()
            speeds.append(size / min(timed(replay) for _ in range(10)))
        print(f"{name}, {layout}: first passes {np.round(first, 2)} s, images/s {np.round(speeds)}", flush=True)


def step_of_recording(step, size: int):
    """Record a training step as a CUDA graph; return what replays it."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(size)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(size)
    return graph.replay


PHASES = {  # functions by the module that calls them
    "headstart.backbones.providers.framework": ("to_onnx",),
    "headstart.backbones.providers.timm": ("open_timm",),
    "headstart.classifier.embedded": ("open_backbone", "choose_precision"),
    "headstart.classifier.fit": ("_split", "select_head", "make_result"),
    "headstart.finetune": ("start_device",),
    "headstart.finetune.run": (
        "Network.__init__",
        "make_plan",
        "Network.fold",
        "Network.to",
        "Network.check_start",
        "estimate_duration",
        "FrozenFit.fit_head",
        "predict",
        "_prepare",
        "_cross_validate",
    ),
    "headstart.finetune.gradients": ("_record",),
    "headstart.finetune.time_limit": ("time_training",),
}
PARTS = {
    "train": measure_training,
    "plain": measure_plain_loop,
    "phases": show_phases,
    "proof": prove,
    "provider": prove_provider,
    "kinds": measure_kinds,
    "channels_last": partial(measure_layout, layout="channels_last"),
    "contiguous_format": partial(measure_layout, layout="contiguous_format"),
}
WARM_UP = "import torch, timm, onnxscript, accelerate, sklearn.model_selection, torch._dynamo, onnxruntime; " + (
    "d = 'cuda' if torch.cuda.is_available() else 'cpu'; x = torch.ones(8, 3, 64, 64, device=d, requires_grad=True); "
    "c = torch.nn.Conv2d(3, 8, 3).to(d); c(x).sum().backward(); print(torch.__version__, timm.__version__, d)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="the folder src of another version")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--parts", default="runs,speed,proof,provider")
    parser.add_argument("--images", type=int, default=2000, help="how many are generated")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--batch-sizes", type=lambda text: [int(n) for n in text.split(",")], default=[32, 128, 256, 512]
    )
    parser.add_argument("--only", choices=PARTS, help="run a part in this process")
    arguments = parser.parse_args()
    if arguments.only is not None:
        PARTS[arguments.only](arguments)
        return
    seconds = {}
    with tempfile.TemporaryDirectory() as name:
        folder, parts = Path(name), arguments.parts.split(",")
        show_output(start(SOURCE, folder / "cache", "-c", WARM_UP), "warm-up")
        sources = {"after": SOURCE} if arguments.before is None else {"before": arguments.before, "after": SOURCE}
        if "runs" in parts:
            for label, source in sources.items():
                seconds[label] = run_command(source, label, arguments, folder)
            seconds["after, features cached"] = run_command(SOURCE, "after", arguments, folder)
        generated = write_images(folder / "generated", arguments.images)
        common = ["--weights", arguments.weights, "--images", arguments.images, "--epochs", arguments.epochs]
        sizes = ",".join(map(str, arguments.batch_sizes))
        begun = [(part, SOURCE, part) for part in ("phases", "proof", "provider", "kinds") if part in parts]
        if "layouts" in parts:
            begun += [(layout, SOURCE, layout) for layout in ("channels_last", "contiguous_format")]
        if "speed" in parts:
            begun += [*((label, source, "train") for label, source in sources.items()), ("plain", SOURCE, "plain")]
        for label, source, part in begun:
            data = [
                "--data",
                generated if part in ("train", "plain", "proof") else arguments.data,
                "--batch-sizes",
                sizes,
            ]
            process = start(source, folder / f"cache-{label}", __file__, *data, *common, "--only", part)
            seconds[f"{label}, {part}"] = show_output(process, label)
    print(json.dumps({name: round(value, 1) for name, value in seconds.items()}))


if __name__ == "__main__":
    main()
