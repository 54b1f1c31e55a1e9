"""`llm-gateway journal`: usage rows as they were written, without a database."""

from __future__ import annotations

import re
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from llm_gateway.accounting.journal import read as read_rows
from llm_gateway.accounting.summary import Summary
from llm_gateway.commands.reading import ConfigOption, sound


def journal(
    data_dir: Annotated[str | None, typer.Option(help="Where the journal is; the configuration's, if not given.")] = None,
    since: Annotated[str | None, typer.Option(help="A time (2026-01-31, 2026-01-31T12:00Z), or 30m, 24h, 7d ago.")] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Only what all of it adds up to.")] = False,
    config: ConfigOption = None,
) -> None:
    """Print usage rows as JSON lines, and to standard error what they add up to by model."""
    folder = Path(data_dir or sound(config).root.data_dir) / "journal"
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no journal in {folder.parent}")
    first = _moment(since) if since is not None else ""
    added = Summary()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends us without a word
    try:
        for row in read_rows(folder):
            if row["ts"] >= first:
                added.add(row)
                if not summary:
                    print(msgspec.json.encode(row).decode())
    except ValueError as error:
        print(f"the journal is damaged: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print("\n".join(added.lines()), file=sys.stdout if summary else sys.stderr)


def _moment(text: str) -> str:
    """As rows write it, so that the two compare as text."""
    ago = re.fullmatch(r"(\d+)([smhd])", text)
    try:
        if ago is not None:
            unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[ago[2]]
            moment = datetime.now(UTC) - timedelta(**{unit: int(ago[1])})
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is no time; write 2026-01-31, 2026-01-31T12:00Z, 30m, 24h or 7d") from error
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
