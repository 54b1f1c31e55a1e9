"""Why a request would go where, in order, without sending it. Values out, for people and their tools.

Law: takes nothing: no probe, no token, no turn of a rotation counts. Where a strategy draws lots, this is one draw.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from llm_gateway.core.errors import Fault
from llm_gateway.core.exchange import Exchange
from llm_gateway.routing import ask, choice
from llm_gateway.routing.plan import Plan, nobody
from llm_gateway.routing.table import Table
from llm_gateway.routing.target import Target


def explain(table: Table, x: Exchange) -> dict[str, Any]:
    """`order`: all that would be tried, first to last; `excluded`: with why; `refusal`: what the client would hear at once, or None."""
    try:
        plan, via = table.chosen(x)
        targets = table.ordered(plan, x)
    except Fault as fault:
        return {"model": x.model, "order": [], "excluded": [], "elsewhere": {}, "refusal": _refusal(fault)}
    tokens = ask.prompt(x) + ask.output(x, targets[0].condition.meter.output.value)
    rows = _rows(plan, x, targets, tokens)
    named = {row["target"] for row in rows}
    unable = [(stop, why) for stop, why in choice.sift(plan, x, (*plan.stops, *plan.fallbacks)) if why and stop.name not in named]
    return {
        "model": x.model,
        "plan": plan.model,
        "rule": via,
        "strategy": plan.strategy,
        "session": bool(plan.sticky != "none" and ask.session(x, prefix=plan.sticky == "prefix")),
        "prompt_tokens": ask.prompt(x),
        "order": rows,
        "excluded": [{"target": stop.name, "why": why} for stop, why in (*plan.excluded, *unable)],
        "elsewhere": {kind.code: [stop.name for stop in stops] for kind, stops in plan.elsewhere.items()},
        "unheard": list(x.unheard),
        "refusal": None if any(row["would"] == "answer" for row in rows) else _refusal(nobody(targets, perf_counter(), tokens)),
    }


def lines(told: dict[str, Any]) -> list[str]:
    """The same for a terminal."""
    refusal = told["refusal"]
    head = [f"refused with {refusal['status']} {refusal['code']}: {refusal['message']}"] if refusal else []
    if "plan" not in told:
        return head
    by = f"rule of {told['model']}, to {told['plan']}" if told["rule"] else told["plan"]
    head.insert(0, f"{told['model']}: by {by}, {told['strategy']}{', kept with its session' if told['session'] else ''}")
    rows = []
    for place, row in enumerate(told["order"], 1):
        facts = [row["would"]]
        facts += [row["region"]] if row["region"] else []
        facts += [f"${row['expected_cost_usd']:.6f}"] if row["expected_cost_usd"] is not None else ["unpriced"]
        facts += [f"~{row['expected_seconds']:.2f} s"] if row["expected_seconds"] else []
        facts += [f"{row['busy']} under way"] if row["busy"] else []
        facts += [row["state"]] if row["state"] else []
        rows.append(f"{place:3}. {row['target']} key {row['key'] or '-'}: {', '.join(facts)}")
    rows += [f"  -  {row['target']}: {row['why']}" for row in told["excluded"]]
    rows += [f"  >  on {code}: {', '.join(names)}" for code, names in told["elsewhere"].items()]
    rows += [f"  ?  not honoured here: {', '.join(told['unheard'])}"] if told["unheard"] else []
    return [*head, *rows]


def _rows(plan: Plan, x: Exchange, targets: list[Target], tokens: int) -> list[dict[str, Any]]:
    now = perf_counter()
    rows: list[dict[str, Any]] = []
    answered = False
    where = {key: stop for stop in (*plan.stops, *plan.fallbacks) for key in stop.keys}
    for target in targets:
        condition = target.condition
        room = condition.full(now, tokens) if plan.limited else 0.0
        state = condition.why(now) or (f"no room for {room:.1f} s" if room else "")
        free = not state or state.startswith(("recovering", "breaker half-open"))
        would = "answer" if free and not answered else "follow" if free else "be passed over"
        answered = answered or free
        meter = condition.meter
        cost = target.price(ask.expected(x, meter.output.value, 0.0), x.wall)
        seconds = meter.first.value + meter.pace.value * ask.output(x, meter.output.value)
        regions = where[target].regions if target in where else ()
        rows.append({
            "target": f"{target.provider}/{target.model}", "key": target.key_id, "would": would, "state": state,
            "region": ", ".join(regions), "expected_cost_usd": None if cost is None else cost / 1e9,
            "expected_seconds": round(seconds, 3) if meter.pace.count else None, "busy": condition.busy,
            "error_rate": round(condition.meter.errors, 3),
        })  # fmt: skip
    return rows


def _refusal(fault: Fault) -> dict[str, Any]:
    return {"status": fault.status or fault.kind.status, "code": fault.code, "message": fault.message, "param": fault.param, "retry_after": fault.retry_after}
