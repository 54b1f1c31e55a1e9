"""Figures as tables: for the terminal, for build/bench.json, and between the markers of docs/benchmarks.md.

Law: of the rounds the least, since what others did to the machine can only add, with the lower quartile beside it, which says
how often it was as good; ratios to nginx of the same run, least to least and quartile to quartile. Rates are the highest.
Shares and what the whole core did are medians. Who did not take part is named with the reason.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drive import median

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

Columns = tuple[tuple[str, str, str], ...]  # (heading, figure, format)
Results = dict[str, dict[str, list[dict[str, float]]]]  # section -> contestant -> figures of each round

MOST = frozenset({"rps", "chunks_s"})
MIDDLE = frozenset({"busy", "softirq_us"})
QUARTILE = "quartile"
CPU: Columns = ((QUARTILE, "cpu_us_quartile", ".1f"), ("+ softirq µs", "softirq_us", ".1f"))
REQUESTS: Columns = (("CPU µs/request", "cpu_us", ".1f"), *CPU, ("requests/s", "rps", ",.0f"), ("core busy", "busy", ".0%"))
LATENCY: Columns = (
    ("p50 ms", "p50_ms", ".3f"), (QUARTILE, "p50_ms_quartile", ".3f"), ("p99 ms", "p99_ms", ".3f"), (QUARTILE, "p99_ms_quartile", ".3f"),
    ("added p50 ms", "added_p50_ms", ".3f"), ("added p99 ms", "added_p99_ms", ".3f"),
)  # fmt: skip
FIRST: Columns = (
    ("first chunk p50 ms", "first_p50_ms", ".3f"), (QUARTILE, "first_p50_ms_quartile", ".3f"), ("p99 ms", "first_p99_ms", ".3f"),
    (QUARTILE, "first_p99_ms_quartile", ".3f"), ("added p50 ms", "added_first_p50_ms", ".3f"),
)  # fmt: skip
CHUNKS: Columns = (("CPU µs/chunk", "cpu_us", ".1f"), *CPU, *FIRST, ("chunks/s", "chunks_s", ",.0f"))
RATIO: Columns = (("× nginx", "ratio", ".2f"), (QUARTILE, "ratio_quartile", ".2f"))
MEMORY: Columns = (("all processes MB", "tree_mb", ".0f"), ("serving process MB", "worker_mb", ".0f"))
EACH: Columns = (("KiB each", "kib_per_stream", ".1f"), ("streams", "streams", ",.0f"))

# section -> (title, columns, the figure compared with nginx)
SECTIONS: dict[str, tuple[str, Columns, str | None]] = {
    "plain-32": ("Plain chat request, 32 connections", REQUESTS, "cpu_us"),
    "plain-128": ("Plain chat request, 128 connections", REQUESTS, "cpu_us"),
    "state-32": ("The same with state, 32 connections: limits and budgets of key and tenant; from the cache", REQUESTS, "cpu_us"),
    "tls-32": ("Plain chat request, upstream over TLS 1.3, 32 connections", REQUESTS, "cpu_us"),
    "single": ("One connection, one request at a time", LATENCY, None),
    "body-1mb": ("Request body of 1 MB", LATENCY, None),
    "streams": ("64 streams, each chunk its own write", CHUNKS, "cpu_us"),
    "translated": ("64 streams, OpenAI client, Anthropic upstream (nginx: untranslated)", CHUNKS, "cpu_us"),
    "ready": ("From the command to the first answer", (("seconds", "seconds", ".2f"),), None),
    "idle": ("Memory at rest", MEMORY, None),
    "held": ("Memory per open, idle stream", EACH, None),
    "stalled": ("Memory per stream whose client never reads", EACH, None),
}


def summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    """What a table shows of one contestant's rounds."""
    figures: dict[str, float] = {}
    for key in rounds[0]:
        values = sorted(each[key] for each in rounds)
        figures[key] = values[-1] if key in MOST else median(values) if key in MIDDLE else values[0]
        figures[f"{key}_quartile"] = values[len(values) // 4]
    return figures


def summaries(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """section -> contestant -> figure, with what each adds to `direct` and its ratio to nginx."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for section, contestants in results.items():
        shown = {name: summary(rounds) for name, rounds in contestants.items() if rounds}
        direct, base = shown.get("direct"), shown.get("nginx")
        compared = SECTIONS[section][2] if section in SECTIONS else None
        for name, figures in shown.items():
            if direct is not None and name != "direct":
                figures |= {f"added_{key}": figures[key] - direct[key] for key in list(figures) if key.endswith("_ms")}
            if base is not None and compared is not None and name != "direct":
                quartile = f"{compared}_quartile"
                figures |= {"ratio": figures[compared] / base[compared], "ratio_quartile": figures[quartile] / base[quartile]}
        out[section] = shown
    return out


def tables(report: dict[str, Any]) -> str:
    """The whole report as Markdown."""
    machine, found = report["machine"], summaries(report["results"])
    lines = [f"Measured on {report['date']}: {machine['cpu']}, {machine['memory']}, {machine['system']}, Python {machine['python']}."]
    lines.append(
        f"{report['rounds']} interleaved rounds of {report['seconds']:g} s each, streams {2 * report['seconds']:g} s{report['seldom']}; "
        "the least, and the lower quartile beside it. "
        + ("Not all tables are of one run, but each is, nginx with it. " if report["amended"] else "")
        + f"Versions: {report['versions']}."
    )
    for section, (title, columns, compared) in SECTIONS.items():
        if section not in found:
            continue
        shown = (*columns, *RATIO) if compared else columns
        lines += ["", f"**{title}**", "", "| | " + " | ".join(heading for heading, _, _ in shown) + " |", "|---|" + "---:|" * len(shown)]
        for name, figures in found[section].items():
            cells = [format(figures[key], how) if key in figures else "" for _, key, how in shown]
            lines.append(f"| {report['labels'].get(name, name)} | " + " | ".join(cells) + " |")
        for name, why in report["absent"].get(section, {}).items():
            lines.append(f"| {report['labels'].get(name, name)} | not measured: {why.replace('|', '/')[:160]} |" + " |" * (len(shown) - 1))
    return "\n".join(lines) + "\n"


def save(report: dict[str, Any], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1))
    target.with_suffix(".md").write_text(tables(report))


def publish(text: str, document: Path) -> None:
    """Replaces what stands between the markers."""
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    document.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")
