"""What it costs to take usage rows from the journal into the database: CPU microseconds per row, all of the operator's threads.

    .venv/bin/python bench/loading.py [--rows 20000] [--database sqlite|postgresql://...]

The lines are those of plain requests of five keys, three models and two sets of tags within two hours.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from llm_gateway.accounting.ledger import Row
from llm_gateway.admin.loading import Loader
from llm_gateway.stores.sql.engine import connect
from llm_gateway.stores.sql.migrate import upgrade


def lines(count: int) -> bytes:
    found = []
    for number in range(count):
        minute, second, ms = number // 60_000 % 60, number // 1000 % 60, number % 1000
        row = Row(
            f"2026-11-27T{9 + number * 2 // count:02}:{minute:02}:{second:02}.{ms:03}Z", f"00b863fd5faf0d9cd6{number + (1 << 48):012x}",
            f"req-{number}", "acme", f"key-{number % 5}", "10.0.0.7", "POST", "/v1/chat/completions", 200, 812.5 + ms / 7, 612, 905,
            f"openai/gpt-{number % 3}", "openai", f"gpt-{number % 3}-2026-08-06", "0", f"req_{number:x}", False, "ok", None, "stop", 811.25, 0.0,
            25, 30, cost=362_500, project="search", key_id=f"k{number % 5}", prices="genai-prices 1",
        )  # fmt: skip
        if number % 2:
            row.tags = ["batch", "eu"]
        found.append(msgspec.json.encode(row) + b"\n")
    return b"".join(found)


async def load(url: str, folder: Path, count: int) -> float:
    engine = connect(url)
    await upgrade(engine)
    (folder / "journal").mkdir()
    (folder / "journal" / "1795766400000-0-1-0.jsonl").write_bytes(lines(count))
    loader = Loader(engine, folder / "journal", folder.name, lambda *said: sys.exit(str(said)))
    begun = time.process_time()
    while await loader.sweep(0.0):
        """Until all is there."""
    spent = time.process_time() - begun
    if loader.rows != count:
        sys.exit(f"{loader.rows} of {count} rows")
    await engine.dispose()
    return spent / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", default="sqlite", help="an empty one; its rows stay")
    chosen = parser.parse_args()
    best = float("inf")
    for _ in range(chosen.rounds if chosen.database == "sqlite" else 1):
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/gateway.db" if chosen.database == "sqlite" else chosen.database
            best = min(best, asyncio.run(load(url, Path(folder), chosen.rows)))
    print(f"{best:.1f} us a row, {1e6 / best:,.0f} rows a second of CPU")


if __name__ == "__main__":
    main()
