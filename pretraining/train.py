"""Distil the student from the teacher: one loop, ``train``, readable from top to bottom.

    python train.py --images PATH=SHARE ... --teacher onnx:FILE --out RUN [--resume]

Every batch is made from (seed, step) alone, and a checkpoint holds weights, averages, optimizer and step, so a run that
was killed continues to the same state. Logs are JSON lines in RUN/log.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluate import ProbeImage, choose_probe, probe_accuracy
from images import ImageSource, make_batch, prefetch
from overlap import remove_overlap
from prune import prune, target_blocks
from student import HEADSTART_S, TAPS, Student
from teacher import Teacher
from torch import Tensor
from torch.nn import functional as F

LOSS_WEIGHTS = dict.fromkeys(TAPS, 1.0) | {"pooled": 1.0, "kl": 0.25}
# A teacher that sees more pixels sees other edges in its first stages, but the same things in its last.
LOSS_WEIGHTS_ZOOMED = {
    "stage2": 0.0,
    "stage3": 0.0,
    "stage4": 0.5,
    "stage5": 1.0,
    "features": 1.0,
    "pooled": 2.0,
    "kl": 0.25,
}
TEMPERATURE = 2  # of the KL divergence
PROBE_CLASSES, PROBE_IMAGES_PER_CLASS = 50, 50  # never trained on
PRUNING_BATCHES, PRUNING_BATCH_SIZE, PRUNING_SIDE = 56, 64, 128
WARM_UP_STEPS = 50
MIN_LR_SHARE = 0.01  # of the learning rate, at the end of the cosine
MAX_GRADIENT_NORM = 5.0
LOG_EVERY = 50  # steps
KILLED = 9  # exit status of --stop-after


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", nargs="+", required=True, metavar="PATH=SHARE", help="folders or tar files")
    parser.add_argument(
        "--evaluation-data", nargs="*", default=[], metavar="PATH", help="class folders that look alike are left out"
    )
    parser.add_argument("--teacher", required=True, metavar="onnx:FILE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", default="teacher", help="teacher (pruned), random, or a checkpoint's file")
    parser.add_argument("--loss", choices=("stages", "logits"), default="stages")
    parser.add_argument(
        "--forced-until", type=float, default=0, help="share of the steps with the teacher's maps as inputs"
    )
    parser.add_argument(
        "--free-from", type=float, default=0, help="share of the steps from which on the student has its own inputs"
    )
    parser.add_argument(
        "--sizes", default="128/192:0.5,160/224:0.5", help="side[/teacher's side]:share of the steps, ..."
    )
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the average of the weights, per step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--probe-every", type=int, default=400, help="steps; 0: never")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--stop-after", type=int, default=0, help="die at this step without saving (for the tests)")
    options = parser.parse_args()
    if options.free_from and "/" in options.sizes:
        parser.error("--forced-until gives the student the teacher's maps, so both need the same side: no / in --sizes")
    return options


def sides_at(sizes: str, progress: float) -> tuple[int, int]:
    """Return the side of the student's and of the teacher's images, from "128/192:0.5,160/224:0.5" ("128:1": equal)."""
    end = 0.0
    for entry in sizes.split(","):
        sides, share = entry.split(":")
        end += float(share)
        if progress < end - 1e-9:
            break
    student, _, teacher = sides.partition("/")
    return int(student), int(teacher or student)


def forcing_at(progress: float, forced_until: float, free_from: float) -> float:
    """Return the share of each stage's input that is the teacher's map: 1 at first, then linearly down to 0."""
    if progress < forced_until:
        return 1.0
    return max(0.0, (free_from - progress) / (free_from - forced_until)) if progress < free_from else 0.0


def losses(maps: list[Tensor], teacher_maps: list[Tensor], classifier: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Compute the losses by name: of each stage, of the pooled features, and of the teacher's classes.

    The first are squared errors over the teacher's variance, the last is a KL divergence.
    """
    result = {}
    for name, student_map, teacher_map in zip(TAPS, maps, teacher_maps, strict=True):
        if student_map.shape == teacher_map.shape or LOSS_WEIGHTS_ZOOMED[name]:
            target = resize(teacher_map, student_map)
            result[name] = F.mse_loss(student_map.float(), target) / target.var(dim=(0, 2, 3)).mean()
    features, target = maps[-1].float().mean(dim=(2, 3)), teacher_maps[-1].mean(dim=(2, 3))
    result["pooled"] = F.mse_loss(features, target) / target.var(dim=0).mean()
    log_p, log_target = (F.log_softmax(F.linear(v, *classifier) / TEMPERATURE, dim=1) for v in (features, target))
    result["kl"] = TEMPERATURE**2 * F.kl_div(log_p, log_target, log_target=True, reduction="batchmean")
    return result


def resize(teacher_map: Tensor, like: Tensor) -> Tensor:
    """Return the teacher's map at the student's size, where the teacher saw more pixels."""
    if teacher_map.shape == like.shape:
        return teacher_map
    return F.interpolate(teacher_map, size=like.shape[2:], mode="bilinear", antialias=True)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


@dataclass(frozen=True)
class TrainingData:
    """The sources of images with the share of crops from each, and the probe, whose images are not among them."""

    sources: list[ImageSource]
    shares: list[float]
    probe: list[ProbeImage]


def load_data(options: argparse.Namespace) -> TrainingData:
    """Open the sources; remove from them what looks like evaluation data, and the probe."""
    paths = [text.rsplit("=", 1) for text in options.images]
    sources, shares = [ImageSource(Path(path)) for path, _ in paths], [float(share) for _, share in paths]
    evaluation = [ImageSource(Path(path)) for path in options.evaluation_data]
    for source in sources if evaluation else ():
        remove_overlap(source, evaluation)
    probe = choose_probe(sources[0], PROBE_CLASSES, PROBE_IMAGES_PER_CLASS)
    sources[0].remove({image.name for image in probe})
    return TrainingData(sources, shares, probe)


def teacher_targets(data: TrainingData, options: argparse.Namespace) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the images of a few batches, and the teacher's maps of them that the student's blocks are fitted to.

    The maps are computed in fp32.
    """
    blocks = target_blocks(HEADSTART_S)
    teacher = Teacher(options.teacher, blocks, fp32=True, threads=options.threads)
    batches = [
        make_batch(data.sources, data.shares, PRUNING_BATCH_SIZE, (PRUNING_SIDE,), options.seed + 1, step)[0]
        for step in range(PRUNING_BATCHES)
    ]
    maps = [teacher(batch) for batch in batches]
    targets = {
        block: torch.from_numpy(np.concatenate(block_maps))
        for block, block_maps in zip(blocks, zip(*maps, strict=True), strict=True)
    }
    return torch.from_numpy(np.concatenate(batches)), targets


@dataclass
class State:
    """What a checkpoint holds: student, average of its weights, optimizer, steps done and seconds spent on them."""

    student: Student
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path, seconds: float, batch_size: int) -> None:
        """Write a checkpoint."""
        save(
            path,
            {
                "student": self.student.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": seconds,
                "batch": batch_size,
            },
        )

    def load(self, checkpoint: dict[str, Any], device: str) -> None:
        """Take over a checkpoint."""
        self.student.load_state_dict(checkpoint["student"])
        self.average = {name: value.to(device) for name, value in checkpoint["average"].items()}
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.step, self.seconds = checkpoint["step"], checkpoint["seconds"]

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Move the average towards the weights, faster in the first steps."""
        decay = min(decay, self.step / (self.step + 10))
        for name, value in self.student.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def averaged_student(self) -> Student:
        """Return a student with the averaged weights, in inference mode."""
        copy = Student(self.student.specs, norm=any("norm" in name for name in self.average))
        copy.load_state_dict({name: value.cpu() for name, value in self.average.items()})
        return copy.eval()


def initial_state(teacher: Teacher, data: TrainingData, options: argparse.Namespace) -> State:
    """Return the state to begin with: that of the checkpoint if the run is resumed."""
    # Batch norm only where weights start at random: pruned ones come folded, and train 1.4 times as fast that way.
    student = Student(norm=options.start == "random")
    path = options.out / "checkpoint.pt"
    checkpoint = torch.load(path, map_location="cpu") if options.resume and path.exists() else None
    if checkpoint is None and options.start == "teacher":
        prune(student, teacher.weights, *teacher_targets(data, options))
        save(options.out / "start.pt", {"average": student.state_dict()})
    elif checkpoint is None and options.start != "random":
        student.load_state_dict(torch.load(options.start, map_location="cpu")["average"])
    student.to(options.device, memory_format=torch.channels_last)
    average = {name: value.detach().clone() for name, value in student.state_dict().items()}
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=options.lr, weight_decay=options.weight_decay, betas=(0.9, 0.99)
    )
    state = State(student, average, optimizer)
    if checkpoint is not None:
        state.load(checkpoint, options.device)
    return state


class Log:
    """Writes JSON lines to a file and to standard output; counts the seconds of the run."""

    def __init__(self, path: Path, start: float) -> None:
        self.file = path.open("a")
        self.start = start

    def seconds(self, state: State) -> float:
        """Return the seconds spent on the run, those before it was resumed among them."""
        return state.seconds + time.time() - self.start

    def write(self, **entry: Any) -> None:
        """Write a line; numbers are rounded to four decimals."""
        line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in entry.items()})
        print(line, file=self.file, flush=True)
        print(line, flush=True)

    def write_probe(self, state: State, probe: Sequence[ProbeImage], options: argparse.Namespace) -> None:
        """Evaluate the averaged student on the probe."""
        side = sides_at(options.sizes, 1.0)[0]
        accuracy = probe_accuracy(state.averaged_student(), probe, side, options.device)
        self.write(samples=state.step * options.batch_size, probe=accuracy, seconds=self.seconds(state))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float, step: int, progress: float) -> None:
    """Set the learning rate of a step, counted from 0: a warm-up, then a cosine over the whole run."""
    warm_up, cosine = min(1.0, (step + 1) / WARM_UP_STEPS), 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = lr * warm_up * max(cosine, MIN_LR_SHARE)


def train(teacher: Teacher, data: TrainingData, state: State, options: argparse.Namespace, log: Log) -> None:
    """Train until ``options.steps``."""
    classifier = tuple(torch.from_numpy(values).to(options.device) for values in teacher.weights["classifier"])
    is_gpu = options.device.startswith("cuda")
    compiled = torch.compile(state.student) if is_gpu else state.student
    autocast = torch.autocast("cuda", torch.bfloat16) if is_gpu else contextlib.nullcontext()

    def make(step: int) -> tuple[list[np.ndarray], int]:
        student_side, teacher_side = sides_at(options.sizes, step / options.steps)
        sides = (student_side,) if student_side == teacher_side else (student_side, teacher_side)
        return make_batch(data.sources, data.shares, options.batch_size, sides, options.seed, step), student_side

    mean_losses: dict[str, float] = {}
    for pixels, size in prefetch(make, range(state.step, options.steps), workers=options.threads):
        progress = state.step / options.steps
        set_learning_rate(state.optimizer, options.lr, state.step, progress)
        teacher_maps = [torch.from_numpy(values).to(options.device) for values in teacher(pixels[-1])]
        x = torch.from_numpy(pixels[0]).to(options.device, memory_format=torch.channels_last)
        with autocast:
            maps = compiled(x, teacher_maps, forcing_at(progress, options.forced_until, options.free_from))
        parts = losses(maps, teacher_maps, classifier)
        if options.loss == "logits":
            loss = parts["kl"]
        else:
            weights = LOSS_WEIGHTS if len(pixels) == 1 else LOSS_WEIGHTS_ZOOMED
            loss = sum(weights[name] * value for name, value in parts.items())
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state.student.parameters(), MAX_GRADIENT_NORM)
        state.optimizer.step()
        state.step += 1
        state.update_average(options.ema)
        for name, value in parts.items():
            mean_losses[name] = mean_losses.get(name, 0.0) + float(value.detach()) / LOG_EVERY
        is_last = state.step == options.steps
        if state.step % LOG_EVERY == 0:
            samples = state.step * options.batch_size
            log.write(samples=samples, size=size, **mean_losses, seconds=log.seconds(state))
            mean_losses = {}
        if state.step % options.save_every == 0 or is_last:
            state.save(options.out / "checkpoint.pt", log.seconds(state), options.batch_size)
        if options.probe_every and (state.step % options.probe_every == 0 or is_last):
            log.write_probe(state, data.probe, options)
        if state.step == options.stop_after:
            os._exit(KILLED)


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    log = Log(options.out / "log.jsonl", time.time())
    data = load_data(options)
    teacher = Teacher(options.teacher, threads=options.threads)
    state = initial_state(teacher, data, options)
    log.write(
        settings={name: str(value) for name, value in vars(options).items()},
        parameters=sum(parameter.numel() for parameter in state.student.parameters()),
    )
    if options.probe_every and state.step == 0:
        log.write_probe(state, data.probe, options)
    train(teacher, data, state, options, log)


if __name__ == "__main__":
    main()
