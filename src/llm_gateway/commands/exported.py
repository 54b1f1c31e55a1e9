"""A file of usage rows from the gateway's database, where no gateway runs.

Law: as alone.py.
"""

from __future__ import annotations

from typing import BinaryIO
from urllib.parse import parse_qs

from sqlalchemy.exc import SQLAlchemyError

from llm_gateway.admin import exporting, questions
from llm_gateway.admin.books import told
from llm_gateway.admin.usage import now
from llm_gateway.config.load import Loaded
from llm_gateway.config.state import address
from llm_gateway.stores.sql.engine import connect
from llm_gateway.stores.sql.migrate import upgrade


async def exported(loaded: Loaded, query: str, file: BinaryIO) -> None:
    """ValueError or ImportError with what is wrong with the question, or the database."""
    said = parse_qs(query, keep_blank_values=True)
    form = questions.one(said, "format")
    if form not in exporting.FORMATS:
        raise ValueError(f"format: expected {', '.join(exporting.FORMATS)}")
    question = questions.question(said, now(), loaded.root.usage.keep_days, paged="format")
    made = exporting.writer(form)
    engine = connect(address(loaded.root))
    try:
        await upgrade(engine)
        async for piece in exporting.export(engine, question, made):
            file.write(piece)
    except SQLAlchemyError as error:
        raise ValueError(f"the database cannot be used: {told(error)}") from error
    finally:
        await engine.dispose()
