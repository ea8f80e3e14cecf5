"""Throughput and latency of ``headstart serve`` beside FastAPI, LitServe and an in-process loop, all on one model.

python benchmarks/serve.py MODEL IMAGES --rivals PYTHON [--rounds N] [--seconds S]

MODEL is a model folder, IMAGES a folder of JPEGs, PYTHON that of an environment with fastapi[standard],
python-multipart and litserve, and all that Headstart needs. All servers run at once and are asked in turn, so that
what else the machine does meets each of them. For each number of clients: *closed*, where every client sends the next
image when it has its answer, gives the throughput; *open*, where images are due at random times at one rate for all
(60% of the in-process loop), whether the answers are there or not, and the time counts from when an image was due,
gives the latency. Medians over the rounds. On a machine that does other work, the processor time of an image, as a
multiple of the loop's, tells more than the images in a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import urlopen

from measure import ROOT, print_table

RIVALS = ("fastapi", "fastapi-tuned", "litserve", "litserve-tuned")
CLIENTS = (1, 8, 64)
SHARE = 0.6  # of the in-process loop, at which images are due
WARM_UP = 0.5  # seconds


def request(image: bytes, form: bool) -> bytes:
    kind, body = "image/jpeg", image
    if form:
        boundary = "headstart-benchmark"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
        body = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + image + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert b" 200 " in head.split(b"\r\n")[0], head
    (length,) = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
    await reader.readexactly(length)


async def closed(port: int, requests: list[bytes], clients: int, seconds: float, group: int) -> tuple[float, float]:
    """Images answered in a second, and the milliseconds of processor time that each took the server."""
    total, before = 0, cpu_seconds(group)
    begin = time.perf_counter() + WARM_UP
    count = 0

    async def client(i: int) -> None:
        nonlocal count, total
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < begin + seconds:
            await ask(reader, writer, requests[i % len(requests)])
            i += clients
            total += 1
            count += begin < time.perf_counter() < begin + seconds
        writer.close()

    await asyncio.gather(*(client(i) for i in range(clients)))
    return count / seconds, 1000 * (cpu_seconds(group) - before) / total


def cpu_seconds(group: int) -> float:
    """Processor time that the processes of a group have used."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def opened(port: int, requests: list[bytes], clients: int, seconds: float, rate: float) -> list[float]:
    """Seconds from when each image was due to its answer."""
    queue: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
    took: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (item := await queue.get()) is not None:
            await ask(reader, writer, item[1])
            took.append(time.perf_counter() - item[0])
        writer.close()

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    due, end, generator = time.perf_counter(), time.perf_counter() + seconds, random.Random(0)
    while due < end:
        due += generator.expovariate(rate)
        await asyncio.sleep(due - time.perf_counter())
        queue.put_nowait((due, generator.choice(requests)))
    for _ in tasks:
        queue.put_nowait(None)
    await asyncio.gather(*tasks)
    return took


def in_process(model: Path, images: list[bytes], seconds: float) -> tuple[float, float]:
    """What ``closed`` returns, of a loop in one process: the better of ``Predictor`` and two threads without it."""
    from concurrent.futures import ThreadPoolExecutor

    from headstart.features import Compute
    from headstart.features.extractor import load_backbone_graph, run_backbone
    from headstart.images.decoding import decode
    from headstart.model import Predictor

    compute = Compute("onnxruntime", "fp32", workers=2)
    predictor = Predictor.load(model, compute)
    backbone = predictor.model.as_backbone()
    graph = load_backbone_graph(backbone, compute)
    preprocess = predictor.model.preprocess

    def plain(image: bytes) -> None:
        run_backbone(graph, backbone, preprocess(decode(image, min_size=preprocess.min_size))[None])

    predictor.predict(images[:64])
    rates, costs = [], []
    with ThreadPoolExecutor(2) as pool:
        for step in (lambda: predictor.predict(images), lambda: list(pool.map(plain, images))):
            start, used, count = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() < start + seconds:
                step()
                count += len(images)
            rates.append(count / (time.perf_counter() - start))
            costs.append(1000 * (time.process_time() - used) / count)
    return max(rates), min(costs)


def start(name: str, model: Path, rivals: str, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if name == "headstart":
        executable = Path(sys.executable).with_name("headstart")
        command = [executable, "serve", model, "--port", port, "--runtime", "onnxruntime", "--workers", 2]
    else:
        command = [rivals, ROOT / "benchmarks" / "serve_rivals.py", name, model, port]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=log, stderr=log, start_new_session=True, cwd=folder
        )
    return process, port


def wait_for(port: int, log: Path) -> None:
    for _ in range(600):
        try:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
        except URLError as error:
            if getattr(error, "code", 503) == 404:  # it answers, and has no such route
                return
        else:
            return
        time.sleep(0.1)
    raise SystemExit(f"Nothing answers: {log.read_text()[-2000:]}")


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--rivals", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", nargs="*", default=["headstart", *RIVALS])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended, too
    images = [path.read_bytes() for path in sorted(options.images.rglob("*.jpg"))[:100]]
    raw, forms = ([request(image, form) for image in images] for form in (False, True))
    model, loops, results = options.model.resolve(), [], {}
    with tempfile.TemporaryDirectory() as folder:
        servers = {name: start(name, model, options.rivals, Path(folder)) for name in options.only}
        try:
            for name, (_, port) in servers.items():
                wait_for(port, Path(folder) / f"{name}.log")
            rate = SHARE * in_process(model, images, options.seconds)[0]
            for _ in range(options.rounds):
                loops.append(in_process(model, images, options.seconds))
                for clients in CLIENTS:
                    for name, (process, port) in servers.items():
                        data = raw if name in ("headstart", "fastapi-tuned") else forms
                        answered, cost = asyncio.run(closed(port, data, clients, options.seconds, process.pid))
                        took = asyncio.run(opened(port, data, clients, options.seconds, rate))
                        latency = [1000 * percentile(took, share) for share in (0.5, 0.99)]
                        row = (answered / loops[-1][0], loops[-1][1] / cost, *latency)
                        results.setdefault((clients, name), []).append(row)
        finally:
            for process, _ in servers.values():
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    images_per_second, cost = (median(loop[i] for loop in loops) for i in (0, 1))
    print(f"in-process loop: {images_per_second:.0f} images a second, {cost:.1f} ms of processor time each; ", end="")
    print(f"images due at {rate:.0f} a second")
    print_table(
        [
            {
                "clients": clients,
                "server": name,
                "images of the loop's": f"{median(row[0] for row in rows):.0%}",
                "processor time": f"{median(1 / row[1] for row in rows):.2f}",
                "p50 ms": round(median(row[2] for row in rows)),
                "p99 ms": round(median(row[3] for row in rows)),
            }
            for (clients, name), rows in results.items()
        ]
    )
    print(json.dumps({f"{clients} {name}": rows for (clients, name), rows in results.items()}))


if __name__ == "__main__":
    main()
