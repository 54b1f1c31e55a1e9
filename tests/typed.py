"""`llm-gateway` in this process, for tests of what a command says: a process of its own takes a second to import what it may need."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from llm_gateway.cli import main


def typed(*words: str, folder: Path, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """As a shell in that folder would start it. environ: all of it, else the tests' own."""
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["llm-gateway", *words])
        for name in [*os.environ] if environ is not None else ():
            patch.delenv(name)
        for name, value in (environ or {}).items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        finally:
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # `journal` lets it end the process, which is not its own here
    return subprocess.CompletedProcess(["llm-gateway", *words], status if isinstance(status, int) else 1, out.getvalue(), err.getvalue())
