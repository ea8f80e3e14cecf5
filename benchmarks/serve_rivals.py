"""The servers that ``serve.py`` compares with, each as its documentation writes it, and tuned.

python benchmarks/serve_rivals.py fastapi|fastapi-tuned|litserve|litserve-tuned MODEL PORT

Needs fastapi[standard], python-multipart and litserve, in an environment of its own. ``tuned`` are given our decoder
and preprocessing, and as many threads as there are cores; FastAPI also raw bodies instead of forms, and LitServe its
dynamic batching.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import litserve
import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request, Response, UploadFile
from PIL import Image

CORES = 2


def session(folder: str, threads: int | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])


def classes(folder: str) -> list[str]:
    return list(json.loads((Path(folder) / "config.json").read_text("utf-8"))["id2label"].values())


def plain_pixels(data: bytes) -> np.ndarray:
    """What a user would write: the image in full, its longer side cropped, resized by Pillow."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BILINEAR))


class OurPixels:
    """Our decoder and preprocessing."""

    def __init__(self, folder: str) -> None:
        from headstart.images.preprocess import Preprocess

        config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
        self.preprocess = Preprocess.from_dict(config["preprocess"])

    def __call__(self, data: bytes) -> np.ndarray:
        from headstart.images.decoding import decode

        return self.preprocess(decode(data, min_size=self.preprocess.min_size))


def scores(names: list[str], row: np.ndarray) -> list[dict[str, object]]:
    return [{"label": names[c], "score": float(row[c])} for c in row.argsort()[::-1][:5]]


def fastapi_documented(folder: str, port: int) -> None:
    model, names, app = session(folder), classes(folder), FastAPI()

    @app.post("/predict")
    def predict(file: UploadFile):
        (row,) = model.run(["probabilities"], {"pixels": plain_pixels(file.file.read())[None]})[0]
        return scores(names, row)

    uvicorn.run(app, port=port, log_level="warning")


def fastapi_tuned(folder: str, port: int) -> None:
    model, names, pixels, app = session(folder, 1), classes(folder), OurPixels(folder), FastAPI()
    pool = ThreadPoolExecutor(CORES)

    def answer(data: bytes) -> bytes:
        (row,) = model.run(["probabilities"], {"pixels": pixels(data)[None]})[0]
        return json.dumps(scores(names, row)).encode()

    @app.post("/predict")
    async def predict(request: Request):
        body = await request.body()
        content = await asyncio.get_running_loop().run_in_executor(pool, answer, body)
        return Response(content, media_type="application/json")

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


class Documented(litserve.LitAPI):
    def __init__(self, folder: str, **options) -> None:
        super().__init__(**options)
        self.folder = folder

    def setup(self, device):  # noqa: ARG002
        self.model, self.names = session(self.folder), classes(self.folder)

    def decode_request(self, request):
        return plain_pixels(request["file"].file.read())

    def predict(self, pixels):
        return self.model.run(["probabilities"], {"pixels": pixels[None]})[0][0]

    def encode_response(self, output):
        return scores(self.names, output)


class Tuned(Documented):
    def setup(self, device):  # noqa: ARG002
        self.model, self.names = session(self.folder, 1), classes(self.folder)
        self.pixels, self.pool = OurPixels(self.folder), ThreadPoolExecutor(CORES)

    def decode_request(self, request):
        return request["file"].file.read()

    def batch(self, inputs):
        return inputs

    def predict(self, inputs):
        pixels = np.stack(list(self.pool.map(self.pixels, inputs)))
        halves = [half for half in np.array_split(pixels, CORES) if len(half)]
        run = self.pool.map(lambda half: self.model.run(["probabilities"], {"pixels": half})[0], halves)
        return np.concatenate(list(run))

    def unbatch(self, output):
        return list(output)


def run_litserve(folder: str, port: int, tuned: bool) -> None:
    api = Tuned(folder, max_batch_size=16, batch_timeout=0.005) if tuned else Documented(folder)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    kind, model_folder, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if kind.startswith("fastapi"):
        (fastapi_tuned if kind.endswith("tuned") else fastapi_documented)(model_folder, number)
    else:
        run_litserve(model_folder, number, kind.endswith("tuned"))
