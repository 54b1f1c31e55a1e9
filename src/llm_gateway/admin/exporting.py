"""Usage rows as a file: CSV, JSON lines or Parquet, page by page, so that neither side ever holds all of it.

Law: what a spreadsheet would take for a formula is text: a cell that begins with = + - @ tab or return gets a `'` before it. Parquet needs
pyarrow (`pip install llm-inference-gateway[parquet]`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Any, Literal, Protocol, get_args

import msgspec
from msgspec.structs import replace
from sqlalchemy import BigInteger, Boolean, Double, Integer
from sqlalchemy.ext.asyncio import AsyncEngine

from llm_gateway.admin import questions
from llm_gateway.stores.sql.asking import COLUMNS, Found, Question, page
from llm_gateway.stores.sql.tables import usage

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
TYPES = {"csv": "text/csv; charset=utf-8; header=present", "jsonl": "application/jsonl", "parquet": "application/vnd.apache.parquet"}
PAGE = 500
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Writer(Protocol):
    """Bytes of a file, in order."""

    def begin(self) -> bytes: ...
    def rows(self, rows: list[Found]) -> bytes: ...
    def end(self) -> bytes: ...


def writer(form: Format) -> Writer:
    """ImportError, with what to do, where Parquet is asked for and cannot be written."""
    if form == "csv":
        return Csv()
    return Jsonl() if form == "jsonl" else Parquet(*load_pyarrow())


async def export(engine: AsyncEngine, question: Question, made: Writer) -> AsyncIterator[bytes]:
    """All rows that the question is about, the oldest first."""
    yield made.begin()
    last: tuple[int, str] | None = None
    while rows := await page(engine, replace(question, limit=PAGE), last, newest_first=False):
        yield made.rows(rows)
        last = rows[-1]["at"], rows[-1]["id"]
    yield made.end()


class Csv:
    names = tuple(questions.row(dict.fromkeys(COLUMNS, 0) | {"tags": ""}))

    def begin(self) -> bytes:
        return (",".join(self.names) + "\r\n").encode()

    def rows(self, rows: list[Found]) -> bytes:
        sheet = io.StringIO()
        written = csv.writer(sheet)
        for row in rows:
            shown = questions.row(row)
            written.writerow([_cell(shown[name]) for name in self.names])
        return sheet.getvalue().encode()

    def end(self) -> bytes:
        return b""


class Jsonl:
    def begin(self) -> bytes:
        return b""

    def rows(self, rows: list[Found]) -> bytes:
        return b"".join(msgspec.json.encode(questions.row(row)) + b"\n" for row in rows)

    def end(self) -> bytes:
        return b""


class Parquet:
    """`ts` in UTC milliseconds, `tags` a list, money in nano-USD."""

    def __init__(self, arrow: Any, parquet: Any) -> None:
        self._arrow = arrow
        self._sink = _Sink()
        self._schema = arrow.schema([_field(arrow, name) for name in COLUMNS])
        self._writer = parquet.ParquetWriter(self._sink, self._schema, compression="zstd")

    def begin(self) -> bytes:
        return self._sink.drain()

    def rows(self, rows: list[Found]) -> bytes:
        columns = [[_value(name, row[name]) for row in rows] for name in COLUMNS]
        arrays = [self._arrow.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(self._arrow.table(arrays, schema=self._schema))
        return self._sink.drain()

    def end(self) -> bytes:
        self._writer.close()
        return self._sink.drain()


class _Sink:
    """What a writer takes for a file: it remembers how long it is, and keeps what was not fetched yet."""

    closed = False

    def __init__(self) -> None:
        self._written = 0
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._waiting.append(bytes(data))
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        """It is nowhere but here."""

    def close(self) -> None:
        """What is left is still fetched."""

    def drain(self) -> bytes:
        data, self._waiting = b"".join(self._waiting), []
        return data


def load_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415  an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'llm-inference-gateway[parquet]'") from error
    return pa, parquet


def _cell(value: object) -> object:
    if isinstance(value, list):
        value = ",".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(FORMULA):
        return "'" + value
    return value


def _field(arrow: Any, name: str) -> Any:
    column = usage.c[name]
    if name == "at":
        return arrow.field("ts", arrow.timestamp("ms", "UTC"))
    if name == "tags":
        return arrow.field(name, arrow.list_(arrow.string()))
    kinds = ((Boolean, arrow.bool_()), (Double, arrow.float64()), (BigInteger, arrow.int64()), (Integer, arrow.int64()))
    kind = next((made for type_, made in kinds if isinstance(column.type, type_)), arrow.string())
    return arrow.field(f"{name}_nano_usd" if name in questions.MONEY else name, kind)


def _value(name: str, value: Any) -> Any:
    if name == "tags":
        return value.split(",") if value else []
    return value
