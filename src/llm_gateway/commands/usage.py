"""`llm-gateway usage`: who used what and what it cost, as a table, as rows in a file, as a month's invoice.

Law: asks the admin API (commands/calls.py); where no gateway runs, its database by the same code. Money is added up in whole nano-USD, and
turned into USD for the eye alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from llm_gateway.commands.calls import JsonOption, call, download
from llm_gateway.commands.reading import ConfigOption
from llm_gateway.core.headers import printable

PATH = "/admin/v1/usage"
NANO = 1_000_000_000
PAGE = 1000
FIGURES = ("requests", "failed", "cached", "input", "output", "unpriced")
NAMELESS = {"tag": "(no tag)", "project": "(no project)", "user": "(no user)", "provider": "(nobody asked)"}

SinceOption = Annotated[str, typer.Option(help="From this time on: 2026-01-31, 2026-01-31T12:00Z, or 30m, 24h, 7d ago.")]
UntilOption = Annotated[str | None, typer.Option(help="Up to this time; now, if not said.")]
WhereOption = Annotated[list[str] | None, typer.Option("--where", help="`tenant=acme`, `model=gpt-4`, `tag=batch`, `status=4xx` ...; may be repeated.")]


def app() -> typer.Typer:
    made = typer.Typer(help="Who used what, and what it cost.", invoke_without_command=True)
    made.callback()(show)
    made.command("export")(export)
    made.command("invoice")(invoice)
    return made


def show(
    context: typer.Context,
    *,
    by: Annotated[str, typer.Option(help="tenant, project, user, key, model, provider, upstream_model, tag, day, hour; several with commas.")] = "tenant,model",
    since: SinceOption = "30d",
    until: UntilOption = None,
    where: WhereOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Print a table of what was used, the dearest first."""
    if context.invoked_subcommand is not None:
        return
    asked = {"group_by": by, "since": since, "until": until, **_conditions(where)}
    answer = _all(config, asked)
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    print(f"{answer['since']} to {answer['until']}", file=sys.stderr)
    print("\n".join(lines(answer["data"], answer["total"])))


def export(
    *,
    form: Annotated[str, typer.Option("--format", help="csv, jsonl or parquet (which needs the extra `parquet`).")] = "csv",
    since: SinceOption = "30d",
    until: UntilOption = None,
    where: WhereOption = None,
    out: Annotated[Path | None, typer.Option(help="The file; standard output if not given.")] = None,
    config: ConfigOption = None,
) -> None:
    """Write the rows of single requests, the oldest first."""
    asked = {"format": form, "since": since, "until": until, **_conditions(where)}
    kept: AbstractContextManager[BinaryIO] = out.open("wb") if out is not None else nullcontext(sys.stdout.buffer)
    with kept as file:
        download(config, f"{PATH}/export", asked, file)


def invoice(
    *,
    tenant: Annotated[str, typer.Option(help="Whose.")],
    month: Annotated[str, typer.Option(help="2026-11, a month of UTC.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Print what a tenant owes for a month: by project and model, and by tag."""
    since, until = _month(month)
    asked = {"tenant": tenant, "since": since, "until": until}
    by_project = _all(config, asked | {"group_by": "project,model"})
    by_tag = _all(config, asked | {"group_by": "tag"})
    if as_json:
        told = {"tenant": tenant, "month": month, "projects": by_project["data"], "tags": by_tag["data"], "total": by_project["total"]}
        print(json.dumps(told, indent=2))
        return
    print(f"Tenant {tenant}, {since} to {until} (UTC, the last day not included)\n")
    print("\n".join(lines([_without(each, "tenant") for each in by_project["data"]], by_project["total"])))
    print("\nBy tag; a request with several stands under each of them, so that these lines may add up to more:\n")
    print("\n".join(lines(by_tag["data"], None)))
    if unpriced := by_project["total"]["unpriced"]:
        print(f"\n{unpriced} replies have no price and are not in the sum: see `prices` in the configuration.")


def lines(groups: list[dict[str, Any]], total: dict[str, Any] | None) -> Iterator[str]:
    """A table: what tells the groups apart, then figures."""
    labels = [name for name in groups[0] if name not in (*FIGURES, "key_id") and isinstance(groups[0][name], str)] if groups else []
    head = [*labels, *FIGURES, "USD"]
    table = [head, *([_named(name, each[name]) for name in labels] + _figures(each) for each in groups)]
    if total is not None:
        table.append(["total", *[""] * (len(labels) - 1)][: len(labels)] + _figures(total))
    widths = [max(len(row[at]) for row in table) for at in range(len(head))]
    for row in table:
        cells = (cell.ljust(width) if at < len(labels) else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True)))
        yield "  ".join(cells).rstrip()


def _named(name: str, value: str) -> str:
    return printable(value) or NAMELESS.get(name, "-")


def _figures(group: dict[str, Any]) -> list[str]:
    return [*(str(group[name]) for name in FIGURES), usd(group["cost_nano_usd"])]


def usd(nano: int) -> str:
    """To the last nano-USD that matters: six places, more where there is more."""
    whole, rest = divmod(nano, NANO)
    digits = f"{rest:09d}"
    return f"{whole}.{digits[:6]}{digits[6:].rstrip('0')}"


def _all(config: str | None, asked: Mapping[str, str | None]) -> dict[str, Any]:
    """All pages of groups, as one answer."""
    answer = call(config, "GET", PATH, None, {**asked, "limit": str(PAGE)})
    fixed = {**asked, "since": answer["since"], "until": answer["until"], "limit": str(PAGE)}  # `7d` ago is another moment on each page
    while answer["next_offset"] is not None:
        page = call(config, "GET", PATH, None, fixed | {"offset": str(answer["next_offset"])})
        answer = {**page, "data": answer["data"] + page["data"]}
    return answer


def _conditions(where: list[str] | None) -> dict[str, str | None]:
    """Of one name several values; the API knows which names there are."""
    found: dict[str, str | None] = {}
    for each in where or ():
        name, equals, value = each.partition("=")
        if not equals:
            raise typer.BadParameter(f"{each!r}: expected `name=value`, such as tenant=acme")
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _month(text: str) -> tuple[str, str]:
    """Its first day, and the next one's."""
    try:
        first = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no month; write 2026-11") from error
    year, month = (first.year + 1, 1) if first.month == 12 else (first.year, first.month + 1)
    return f"{first:%Y-%m-%d}", f"{year:04}-{month:02}-01"


def _without(group: dict[str, Any], name: str) -> dict[str, Any]:
    return {each: value for each, value in group.items() if each != name}
