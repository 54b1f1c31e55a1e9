"""What `llm-gateway db` does with a database, once SQLAlchemy is there.

Law: one connection, closed again.
"""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from llm_gateway.admin.books import told
from llm_gateway.stores.sql import migrate
from llm_gateway.stores.sql.engine import connect


async def asked(url: str, what: str) -> tuple[bool, migrate.Schema | str]:
    """what: status or upgrade. Whether the database answered, and what was found; or why not."""
    engine = connect(url)
    try:
        return True, await (migrate.upgrade(engine) if what == "upgrade" else migrate.status(engine))
    except (SQLAlchemyError, OSError) as error:
        return False, told(error)
    finally:
        await engine.dispose()
