"""What choosing a target costs: CPU microseconds per request for each strategy with five targets, beside a single target.

    .venv/bin/python bench/choosing.py

In process and without sockets, so that the figures are the routing's alone; compare them with nginx's CPU per request of `make bench`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from llm_gateway import wiring
from llm_gateway.config.compile import compile_snapshot
from llm_gateway.config.load import load
from llm_gateway.config.material import imagined
from llm_gateway.core.types import Usage
from llm_gateway.models.catalogue import load_catalogue
from llm_gateway.routing.table import Table
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.upstream.pool import Pool
from routing.conftest import asked

STRATEGIES = ("priority", "weighted", "round_robin", "least_busy", "latency", "throughput", "cost", "adaptive")
ROUNDS, EACH = 7, 3000


def table(folder: Path) -> Table:
    catalogue = load_catalogue()
    names = "abcde"
    providers = "\n".join(f'  {n}: {{type: openai_compatible, base_url: "http://127.0.0.1:{at}", api_key: k}}' for at, n in enumerate(names, 1))
    targets = ", ".join(f"{n}/gpt-4o" for n in names)
    models = "\n".join(f"  {s}: {{strategy: {s}, targets: [{targets}]}}" for s in STRATEGIES)
    prices = "\n".join(f"  {n}/gpt-4o: {{input: {at}, output: {at * 4}}}" for at, n in enumerate(names, 1))
    limited = '  l: {type: openai_compatible, base_url: "http://127.0.0.1:9", api_key: k, rate_limit: {requests_per_minute: 1000000000}}'
    (folder / "config.yaml").write_text(f"providers:\n{providers}\n{limited}\nmodels:\n{models}\nprices:\n{prices}\n")
    loaded = load(str(folder / "config.yaml"), {})
    snapshot = compile_snapshot(loaded, {}, imagined(loaded.root), catalogue.resolve, 1).snapshot
    return wiring.table(snapshot, catalogue, Metrics(), Pool(memoryview(bytearray(1))))


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = table(Path(folder))
    cases = {
        "one target": asked("a/gpt-4o"),
        "one target, rate limit": asked("l/gpt-4o"),
        **{f"five, {name}": asked(name) for name in STRATEGIES},
        "five, weighted, session": asked("weighted", headers={b"x-gateway-session": b"me"}),
        "five, caller's options": None,
    }
    for name in STRATEGIES:
        for target in made.plan(name).targets(0):
            for _ in range(10):
                target.condition.measured(time.perf_counter(), 0.3, 2.0, 100)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, request in cases.items():
            one = request or asked("priority", body={"provider": {"order": ["c"]}})
            options = dict(one.peek.members)
            begun = time.process_time()
            for _ in range(EACH):
                if request is None:
                    one.peek.members.update(options)
                one.usage, one.prompt_estimate = Usage(input=9, output=9), 0
                plan, course = made.course(one)
                if plan.measured:
                    made.learn(one, course)
                course.done()
            spent = (time.process_time() - begun) / EACH * 1e6
            best[name] = min(best.get(name, spent), spent)
    for name, micros in best.items():
        print(f"{name:26} {micros:6.2f} us")


if __name__ == "__main__":
    main()
