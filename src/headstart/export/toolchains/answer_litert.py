"""Answer images by a LiteRT model. Runs in the toolchain "litert": python answer_litert.py MODEL.tflite

Standard input: a line with a count, then so many images; standard output: their scores. See ``export.toolchain``.
"""

import os
import sys

import numpy as np


def main(path: str) -> None:
    """Answer until the input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print does not get among the answers
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()
    shape = run.get_input_details()["pixels"]["shape"]
    while line := requests.readline():
        for _ in range(int(line)):
            pixels = np.frombuffer(requests.read(int(np.prod(shape))), np.uint8).reshape(shape)
            result = run(pixels=pixels)
            answers.write(
                np.concatenate([result[name].reshape(-1) for name in ("probabilities", "distance")]).tobytes()
            )
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
