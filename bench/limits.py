"""What limits and budgets cost: CPU microseconds per request to reserve and settle, counted in memory.

    .venv/bin/python bench/limits.py

In process and without sockets, so that the figures are the limits' alone; compare them with nginx's CPU per request of `make bench`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from llm_gateway import wiring
from llm_gateway.admission.quota import Quota
from llm_gateway.config.compile import compile_snapshot
from llm_gateway.config.load import load
from llm_gateway.config.material import imagined
from llm_gateway.core.exchange import Principal
from llm_gateway.core.tenancy import Budget, Grant, Holder, Limits
from llm_gateway.core.types import Usage
from llm_gateway.models.catalogue import load_catalogue
from llm_gateway.stores.gauges import Memory
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.upstream.pool import Pool
from routing.conftest import asked

ROUNDS, EACH = 9, 4000
MANY = 10**9
CONFIG = """
providers: {a: {type: openai_compatible, base_url: "http://127.0.0.1:1", api_key: k}}
prices: {a/m: {input: 1, output: 4}}
catalogue: {a/m: {max_output: 4000}}
"""
GRANTS = {
    "nothing": [],
    "one limit (requests)": [Grant(Limits(requests=MANY))],
    "requests and tokens": [Grant(Limits(requests=MANY, tokens=MANY))],
    "requests, tokens, at once": [Grant(Limits(requests=MANY, tokens=MANY, concurrent=MANY))],
    "the same, and a soft budget": [Grant(Limits(requests=MANY, tokens=MANY, concurrent=MANY), {}, (Budget(MANY * MANY, hard=False),))],
    "the same, and a hard budget": [Grant(Limits(requests=MANY, tokens=MANY, concurrent=MANY), {}, (Budget(MANY * MANY),))],
    "key and tenant, all of it": 2 * [Grant(Limits(requests=MANY, tokens=MANY, concurrent=MANY), {}, (Budget(MANY * MANY),))],
}


ASKED = {"max_tokens": 100, "messages": [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "word " * 90}]}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    catalogue = load_catalogue()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_text(CONFIG)
        loaded = load(str(Path(folder) / "config.yaml"), {})
        snapshot = compile_snapshot(loaded, {}, imagined(loaded.root), catalogue.resolve, 1).snapshot
    table = wiring.table(snapshot, catalogue, Metrics(), Pool(memoryview(bytearray(1))))
    quota = Quota(Memory(alert=lambda *_: None))
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, grants in GRANTS.items():
            holders = tuple(Holder(f"key:{name}{number}", grant) for number, grant in enumerate(grants))
            x = asked("a/m", principal=Principal("k", "t", id="k", holders=holders), body=ASKED)
            plan, course = table.course(x)
            begun = time.process_time()
            for _ in range(EACH):
                x.extra, x.hold, x.prompt_estimate = b"", None, 0
                quota.reserve(x, plan, course)
                if x.hold is not None:
                    x.usage, x.cost = USAGE, 500
                    x.hold.settle(x)
            spent = (time.process_time() - begun) / EACH * 1e6
            best[name] = min(best.get(name, spent), spent)
    for name, micros in best.items():
        print(f"{name:30} {micros:6.2f} us")


USAGE = Usage(input=9, output=9)

if __name__ == "__main__":
    main()
