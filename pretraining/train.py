"""Distil the student from the teacher: one loop, read from top to bottom.

    python train.py --pictures DIR=SHARE ... --teacher onnx:FILE --out RUN [--resume]

Every batch is made from (seed, step) alone, and a checkpoint holds weights, averages, optimiser and step, so
a run that was killed goes on to the same state. Logs are JSON lines in RUN/log.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import time
from pathlib import Path

import apart
import evaluate
import numpy as np
import torch
from pictures import Source, ahead, batch_at
from prune import parts_with_targets, prune
from student import HEADSTART_S, TAPS, Student
from teacher import Teacher
from torch import Tensor
from torch.nn import functional as F

WEIGHTS = dict.fromkeys(TAPS, 1.0) | {"pooled": 1.0, "kl": 0.25}
# A teacher that sees more pixels sees other edges in its first stages, but the same things in its last.
WEIGHTS_ZOOMED = {
    "stage2": 0.0,
    "stage3": 0.0,
    "stage4": 0.5,
    "stage5": 1.0,
    "features": 1.0,
    "pooled": 2.0,
    "kl": 0.25,
}
KEPT_OUT_CLASSES, KEPT_OUT_EACH = 50, 50  # pictures of the probe: never trained on


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--pictures", nargs="+", required=True, metavar="PLACE=SHARE", help="folders or tar files")
    p.add_argument("--apart", nargs="*", default=[], metavar="PLACE", help="evaluation's: look-alikes' folders go")
    p.add_argument("--teacher", required=True, metavar="onnx:FILE")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--start", default="teacher", help="teacher (pruned), random, or a checkpoint's file")
    p.add_argument("--loss", choices=("stages", "logits"), default="stages")
    p.add_argument("--forced", type=float, default=0, help="share of the steps with the teacher's maps as inputs")
    p.add_argument("--weaned", type=float, default=0, help="share of the steps after which the student is alone")
    p.add_argument("--sizes", default="128/192:0.5,160/224:0.5", help="side[/teacher's side]:share of the steps, ...")
    p.add_argument("--steps", type=int, required=True)
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--rate", type=float, default=1e-3)
    p.add_argument("--decay", type=float, default=0.01)
    p.add_argument("--average", type=float, default=0.998, help="of the weights, a step")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    p.add_argument("--probe-every", type=int, default=400, help="steps; 0: never")
    p.add_argument("--save-every", type=int, default=100)
    p.add_argument("--resume", action="store_true")
    p.add_argument("--stop-after", type=int, default=0, help="die at this step, unsaved (for the tests)")
    found = p.parse_args()
    if found.weaned and "/" in found.sizes:
        p.error("--forced feeds the student the teacher's maps, so both must see the same side: no / in --sizes")
    return found


def sides_at(sizes: str, progress: float) -> tuple[int, int]:
    """Side of the student's and of the teacher's pictures, of "128/192:0.5,160/224:0.5" ("128:1": the same)."""
    passed = 0.0
    for entry in sizes.split(","):
        sides, share = entry.split(":")
        passed += float(share)
        if progress < passed - 1e-9:
            break
    student, _, teacher = sides.partition("/")
    return int(student), int(teacher or student)


def share_at(progress: float, forced: float, weaned: float) -> float:
    """How much of each stage's input is the teacher's: 1 while forced, then falling evenly to 0 at weaned."""
    if progress < forced:
        return 1.0
    return max(0.0, (weaned - progress) / (weaned - forced)) if progress < weaned else 0.0


def losses(maps: list[Tensor], wanted: list[Tensor], classifier: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Squared error over the teacher's variance, of each stage and of pooled features; KL of the classes."""
    result = {}
    for name, s, t in zip(TAPS, maps, wanted, strict=True):
        if s.shape == t.shape or WEIGHTS_ZOOMED[name]:
            t = resized(t, s)
            result[name] = F.mse_loss(s.float(), t) / t.var(dim=(0, 2, 3)).mean()
    s, t = maps[-1].float().mean(dim=(2, 3)), wanted[-1].mean(dim=(2, 3))
    result["pooled"] = F.mse_loss(s, t) / t.var(dim=0).mean()
    s, t = (F.log_softmax(F.linear(v, *classifier) / 2, dim=1) for v in (s, t))
    result["kl"] = 4 * F.kl_div(s, t, log_target=True, reduction="batchmean")
    return result


def resized(wanted: Tensor, like: Tensor) -> Tensor:
    """The teacher's map at the student's size, where the teacher looked at more pixels."""
    if wanted.shape == like.shape:
        return wanted
    return F.interpolate(wanted, size=like.shape[2:], mode="bilinear", antialias=True)


def save(path: Path, state: dict) -> None:
    """Whole or not at all."""
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def calibration(opt: argparse.Namespace, sources: list[Source], shares: list[float]) -> tuple[Tensor, dict]:
    """A few batches and the teacher's maps of them after every block that the student aims at, in fp32."""
    ends = parts_with_targets(HEADSTART_S)
    teacher = Teacher(opt.teacher, ends, precise=True, threads=opt.threads)
    batches = [batch_at(sources, shares, 64, (128,), opt.seed + 1, step)[0] for step in range(56)]
    maps = [teacher(x) for x in batches]
    targets = {e: torch.from_numpy(np.concatenate(m)) for e, m in zip(ends, zip(*maps, strict=True), strict=True)}
    return torch.from_numpy(np.concatenate(batches)), targets


def main() -> None:
    opt = options()
    torch.set_num_threads(opt.threads)
    torch.manual_seed(opt.seed)
    opt.out.mkdir(parents=True, exist_ok=True)
    started = time.time()
    log_file = (opt.out / "log.jsonl").open("a")

    def log(**entry) -> None:
        line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in entry.items()})
        print(line, file=log_file, flush=True)
        print(line, flush=True)

    # Pictures; the probe's are kept out of training.
    places = [place.rsplit("=", 1) for place in opt.pictures]
    sources, shares = [Source(Path(place)) for place, _ in places], [float(share) for _, share in places]
    kept_apart = [Source(Path(place)) for place in opt.apart]
    for source in sources if kept_apart else ():
        gone = {apart.folder(ours) for ours, _, _ in apart.look_alikes(source, kept_apart)}
        source.without({name for name in source.names if apart.folder(name) in gone})
    probe = evaluate.probe_set(sources[0], KEPT_OUT_CLASSES, KEPT_OUT_EACH)
    sources[0].without({name for name, _, _ in probe})

    # Teacher and student.
    teacher = Teacher(opt.teacher, threads=opt.threads)
    classifier = tuple(torch.from_numpy(w).to(opt.device) for w in teacher.weights["classifier"])
    # Batch norm only where weights start at random: pruned ones come folded, and train 1.4 times as fast so.
    student = Student(norm=opt.start == "random")
    checkpoint = opt.out / "checkpoint.pt"
    resumed = torch.load(checkpoint, map_location="cpu") if opt.resume and checkpoint.exists() else None
    if resumed is None and opt.start == "teacher":
        prune(student, teacher.weights, *calibration(opt, sources, shares))
        save(opt.out / "start.pt", {"average": student.state_dict()})
    elif resumed is None and opt.start != "random":
        student.load_state_dict(torch.load(opt.start, map_location="cpu")["average"])
    student.to(opt.device, memory_format=torch.channels_last)
    average = {k: v.detach().clone() for k, v in student.state_dict().items()}
    optimiser = torch.optim.AdamW(student.parameters(), lr=opt.rate, weight_decay=opt.decay, betas=(0.9, 0.99))
    step, seconds = 0, 0.0
    if resumed is not None:
        student.load_state_dict(resumed["student"])
        average = {k: v.to(opt.device) for k, v in resumed["average"].items()}
        optimiser.load_state_dict(resumed["optimiser"])
        step, seconds = resumed["step"], resumed["seconds"]
    on_gpu = opt.device.startswith("cuda")
    compiled = torch.compile(student) if on_gpu else student
    autocast = torch.autocast("cuda", torch.bfloat16) if on_gpu else contextlib.nullcontext()

    def report(step: int) -> None:
        accuracy = evaluate.probe(averaged(student, average), probe, sides_at(opt.sizes, 1.0)[0], opt.device)
        log(samples=step * opt.batch, probe=accuracy, seconds=seconds + time.time() - started)

    log(
        settings={k: str(v) for k, v in vars(opt).items()},
        parameters=sum(p.numel() for p in student.parameters()),
    )
    if opt.probe_every and resumed is None:
        report(step)

    def make(step: int) -> tuple[list[np.ndarray], int]:
        student_side, teacher_side = sides_at(opt.sizes, step / opt.steps)
        sides = (student_side,) if student_side == teacher_side else (student_side, teacher_side)
        return batch_at(sources, shares, opt.batch, sides, opt.seed, step), student_side

    running: dict[str, float] = {}
    for pixels, size in ahead(make, range(step, opt.steps), workers=opt.threads):
        progress = step / opt.steps
        wanted = [torch.from_numpy(m).to(opt.device) for m in teacher(pixels[-1])]
        warm, cosine = min(1.0, (step + 1) / 50), 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimiser.param_groups:
            group["lr"] = opt.rate * warm * max(cosine, 0.01)
        x = torch.from_numpy(pixels[0]).to(opt.device, memory_format=torch.channels_last)
        with autocast:
            maps = compiled(x, wanted, share_at(progress, opt.forced, opt.weaned))
        parts = losses(maps, wanted, classifier)
        if opt.loss == "logits":
            loss = parts["kl"]
        else:
            weights = WEIGHTS if len(pixels) == 1 else WEIGHTS_ZOOMED
            loss = sum(weights[name] * value for name, value in parts.items())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        step += 1
        keep = min(opt.average, step / (step + 10))
        with torch.no_grad():
            for name, value in student.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1 - keep)
                else:
                    average[name].copy_(value)
        for name, value in parts.items():
            running[name] = running.get(name, 0.0) + float(value.detach()) / 50
        if step % 50 == 0:
            log(samples=step * opt.batch, size=size, **running, seconds=seconds + time.time() - started)
            running = {}
        if step % opt.save_every == 0 or step == opt.steps:
            state = {"student": student.state_dict(), "average": average, "optimiser": optimiser.state_dict()}
            save(
                checkpoint,
                {**state, "step": step, "seconds": seconds + time.time() - started, "batch": opt.batch},
            )
        if opt.probe_every and (step % opt.probe_every == 0 or step == opt.steps):
            report(step)
        if step == opt.stop_after:
            os._exit(9)


def averaged(student: Student, average: dict[str, Tensor]) -> Student:
    norm = any("norm" in name for name in average)
    copy = Student(student.parts, norm=norm)
    copy.load_state_dict({k: v.cpu() for k, v in average.items()})
    return copy.eval()


if __name__ == "__main__":
    main()
