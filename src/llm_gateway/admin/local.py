"""The operator's socket in data_dir, for commands on the same machine: they find the gateway whose data this is, whatever its ports.

Law: only the user whose data_dir it is may connect, and the token is asked for all the same.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def listening(path: Path) -> Iterator[list[socket.socket]]:
    """One socket bound to `path` until the block is left; none where the system takes no such path (over 100 characters)."""
    sock = socket.socket(socket.AF_UNIX)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        sock.bind(str(draft))
        draft.chmod(0o600)
        sock.listen(64)
        draft.replace(path)  # what a dead operator left behind goes, and nobody sees the name of a socket that does not listen yet
    except OSError:
        sock.close()
        draft.unlink(missing_ok=True)
        yield []
        return
    born = path.stat().st_ino
    try:
        yield [sock]
    finally:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == born:  # a successor's stays
                path.unlink()
