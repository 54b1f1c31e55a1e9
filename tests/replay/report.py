"""All recorded traffic through all shapes, and what became of it as a page: `make replay` writes docs/replay.md.

Law: nothing is skipped in silence. What is not served stands there by name with the reason, and so does what fails; a failure that
`allowed.json` does not know, or one that it knows and that is none any more, ends with status 1.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from multiprocessing import Pool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # standalone: `replay` is a package of the tests' folder

from replay.proof import Outcome, prove
from replay.recordings import CHECKOUT, Interaction, load
from replay.served import CLIENTS, UPSTREAMS, Served, served

ALLOWED = Path(__file__).with_name("allowed.json")
PAGE = CHECKOUT / "docs" / "replay.md"
_MARKS = {"same": "=", "crossed": "", "refused": "r", "failed": "f"}
_INTRO = """\
# The replay of recorded traffic

Made by `make replay` (`tests/replay/report.py`), in half a minute. Each of the {count} recorded interactions goes through every client
shape of its operation, in process, {proofs} proofs in all: {totals}.

- **As an upstream's reply**: passed through to clients of its own shape byte for byte, crossed to those of the others, and read with
  the real SDK's types of the client's shape (openai, anthropic, google-genai, botocore, ollama). Text, tool calls, the reason it
  ended and the tokens must be those that the recording tells, which is read without the gateway (`tests/replay/told.py`).
- **As a client's request**: in its own shape what goes out must equal what was recorded, but for the model and for our own wish to
  be told the usage; in another it must be what the API's published schema admits (the SDKs' parameter types, botocore's service
  model; an unknown member is wrong), or be refused with a 400 that names a path of the client's own request.
- **As an error**: one kind of fault, told in each client's shape with that API's names of types.

In the tables, `=` counts what passed in its own shape; a bare number, what crossed; `r`, refused; `f`, failed.
"""


def run(interactions: Sequence[Interaction]) -> list[Outcome]:
    """On two cores, in the order of the recordings."""
    with Pool(2) as pool:
        return list(itertools.chain.from_iterable(pool.imap(_proved, interactions, chunksize=8)))


def _proved(one: Interaction) -> list[Outcome]:
    return list(prove(one))


def allowed() -> dict[tuple[str, str, str], str]:
    """(interaction, aspect, shape) -> why it may fail."""
    return {(name, each["aspect"], each["shape"]): each["reason"] for each in json.loads(ALLOWED.read_text()) for name in each["ids"]}


def unexpected(outcomes: Iterable[Outcome], known: Iterable[tuple[str, str, str]]) -> list[str]:
    """What fails and is not known to, and what is known to fail and does not."""
    failed = {(each.id, each.aspect, each.shape): each.detail for each in outcomes if each.result == "failed"}
    listed = set(known)
    found = [f"{' '.join(key)}: {detail}" for key, detail in failed.items() if key not in listed]
    return found + [f"{' '.join(key)}: allowed to fail, and does not" for key in sorted(listed - failed.keys())]


def stratified(interactions: Sequence[Interaction], count: int) -> list[Interaction]:
    """Some of every provider, API, manner and outcome: one of each in turn until there are enough."""
    strata: dict[tuple[object, ...], list[Interaction]] = defaultdict(list)
    for one in interactions:
        if not isinstance(served(one), str):
            strata[one.row["provider"], one.row["api"], one.row["streaming"], one.status >= 400].append(one)
    rounds = itertools.zip_longest(*strata.values())
    return [one for one in itertools.chain.from_iterable(rounds) if one is not None][:count]


# -- the page ---------------------------------------------------------------------------------------------------------


def page(interactions: Sequence[Interaction], outcomes: Sequence[Outcome]) -> str:
    totals = Counter(each.result for each in outcomes)
    told = ", ".join(f"{totals[name]} {name}" for name in _MARKS)
    return "\n".join((
        _INTRO.format(count=len(interactions), proofs=len(outcomes), totals=told),
        *_tables("Replies", outcomes, "reply"), *_tables("Requests", outcomes, "request"), *_tables("Errors", outcomes, "error"),
        *_kinds(interactions, outcomes), *_refusals(outcomes), *_failures(outcomes), *_unserved(interactions),
    )) + "\n"  # fmt: skip


def _tables(title: str, outcomes: Iterable[Outcome], aspect: str) -> list[str]:
    """One for each operation, with a column for each of its shapes."""
    cells: dict[tuple[str, str], dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for each in outcomes:
        if each.aspect == aspect:
            cells[each.provider, each.api][each.shape][each.result] += 1
    lines = [f"## {title}", ""]
    for operation, shapes in CLIENTS.items():
        columns = [*shapes, *(UPSTREAMS.get(operation, ()) if aspect == "request" else ())]
        rows = {key: row for key, row in cells.items() if row.keys() & set(columns)}
        if rows:
            lines += [f"### {operation}", "", f"| provider | api | {' | '.join(f'`{each}`' for each in columns)} |"]
            lines += ["|" + "---|" * (len(columns) + 2)]
            lines += [f"| {key[0]} | {key[1]} | {' | '.join(_cell(row[shape]) for shape in columns)} |" for key, row in sorted(rows.items())]
            lines.append("")
    return lines


def _cell(counts: Counter[str]) -> str:
    return " ".join(f"{mark}{counts[name]}" for name, mark in _MARKS.items() if counts[name])


def _kinds(interactions: Sequence[Interaction], outcomes: Iterable[Outcome]) -> list[str]:
    statuses = {one.id: one.status for one in interactions}
    found = Counter({(each.provider, statuses[each.id], each.detail, each.id) for each in outcomes if each.aspect == "error"})
    counts = Counter(key[:3] for key in found)
    lines = ["What kind of fault an error is:", "", "| provider | status | kind | |", "|---|---|---|---|"]
    return [*lines, *(f"| {provider} | {status} | {kind} | {count} |" for (provider, status, kind), count in sorted(counts.items())), ""]


def _refusals(outcomes: Iterable[Outcome]) -> list[str]:
    """By target and field, numbers left out."""
    counts = Counter(
        (each.shape, each.api, "".join(letter for letter in each.detail if not letter.isdigit()))
        for each in outcomes if each.result == "refused"
    )  # fmt: skip
    lines = ["## Refused, by the client's own path", "", "| target | client's api | path | |", "|---|---|---|---|"]
    return [*lines, *(f"| `{shape}` | {api} | `{path}` | {count} |" for (shape, api, path), count in sorted(counts.items())), ""]


def _failures(outcomes: Iterable[Outcome]) -> list[str]:
    reasons = allowed()
    lines = ["## Failures", "", "| interaction | as | shape | what | why it may |", "|---|---|---|---|---|"]
    for each in outcomes:
        if each.result == "failed":
            why = reasons.get((each.id, each.aspect, each.shape), "**not known**")
            what = each.detail.replace("|", "\\|")
            lines.append(f"| `{each.id}` | {each.aspect} | `{each.shape}` | {what} | {why} |")
    return [*lines, ""]


def _unserved(interactions: Iterable[Interaction]) -> list[str]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for one in interactions:
        if not isinstance(where := served(one), Served):
            reasons[where].append(one.id)
    lines = ["## Not served", "", f"{sum(map(len, reasons.values()))} of the recorded interactions are of what the gateway does not do:", ""]
    for reason, names in reasons.items():
        lines += [f"- {reason}: {', '.join(f'`{name}`' for name in names)}."]
    return lines


def main() -> int:
    interactions = load().interactions
    started = time.perf_counter()
    outcomes = run(interactions)
    PAGE.write_text(page(interactions, outcomes), encoding="utf-8")
    totals = Counter((each.aspect, each.result) for each in outcomes)
    for (aspect, result), count in sorted(totals.items()):
        print(f"{aspect:8} {result:8} {count:6}")
    wrong = unexpected(outcomes, allowed())
    for line in wrong:
        print(f"FAILED {line}")
    print(f"{len(outcomes)} proofs of {len(interactions)} interactions in {time.perf_counter() - started:.0f} s; {PAGE.relative_to(CHECKOUT)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
