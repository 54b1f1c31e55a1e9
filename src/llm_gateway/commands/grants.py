"""What `keys` and `tenants` have in common: how a person says and reads what somebody may use.

Law: words only; the admin API judges them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from llm_gateway.core.headers import printable

LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        help="requests_per_minute, tokens_per_minute, requests_per_day or concurrent, such as concurrent=5; of one model, gpt-4:concurrent=5. May be repeated.",
    ),
]
BudgetOption = Annotated[
    list[str] | None, typer.Option("--budget", help="US dollars per hour, day, week, month or total, such as 10/day; 10/day:soft only tells. May be repeated.")
]
ModelOption = Annotated[list[str] | None, typer.Option("--model", help="A model or alias it may use; all if none is said. May be repeated.")]
RegionOption = Annotated[list[str] | None, typer.Option("--region", help="Where its requests may be answered. May be repeated.")]
OutputOption = Annotated[int | None, typer.Option("--max-output-tokens", help="Tokens of one reply at most.")]
UnsetOption = Annotated[
    list[str] | None, typer.Option("--unset", help="Take back what was said: limits, budgets, models, regions, max_output_tokens ... May be repeated.")
]


def said(limits: list[str] | None, budgets: list[str] | None, models: list[str] | None, regions: list[str] | None, most: int | None) -> dict[str, Any]:
    """The part of a body that options say. Raises typer.BadParameter."""
    parts = {
        "limits": _limits(limits or ()), "budgets": [_budget(each) for each in budgets or ()], "models": models, "regions": regions,
        "max_output_tokens": most,
    }  # fmt: skip
    return given(**parts)


def given(**parts: Any) -> dict[str, Any]:
    """Those that say anything."""
    return {name: value for name, value in parts.items() if value not in (None, [], {})}


def taken_back(names: list[str] | None) -> dict[str, None]:
    return dict.fromkeys(names or ())


def table(rows: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Lines of columns, headed."""
    cells = [[each.upper() for each in columns], *([_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


def lines(row: dict[str, Any]) -> str:
    """One record, a line a member; what is nested as JSON."""
    width = max(map(len, row))
    return "\n".join(f"{name:{width}}  {_cell(value)}" for name, value in row.items())


def printed(row: dict[str, Any], *, as_json: bool) -> None:
    print(json.dumps(row, indent=2) if as_json else lines(row))


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return printable(",".join(value)) or "-"
    return "-" if value is None else json.dumps(value)


def _limits(said: Iterable[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for each in said:
        name, equals, count = each.rpartition("=")
        if not equals or not count.isdigit():
            raise typer.BadParameter(f"{each!r} is no limit; write requests_per_minute=60, or gpt-4:concurrent=5")
        model, colon, rate = name.rpartition(":")
        where = made.setdefault("models", {}).setdefault(model, {}) if colon else made
        where[rate] = int(count)
    return made


def _budget(said: str) -> dict[str, Any]:
    amount, slash, rest = said.partition("/")
    period, _, kind = rest.partition(":")
    if not slash or kind not in ("", "soft", "hard"):
        raise typer.BadParameter(f"{said!r} is no budget; write 10/day, or 10/day:soft")
    return {"usd": amount, "period": period} | ({"hard": False} if kind == "soft" else {})
