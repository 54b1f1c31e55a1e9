"""Who may import whom, and that importing costs little and does nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
NOT_IN_A_WORKER = {
    "sqlalchemy", "alembic", "starlette", "uvicorn", "pydantic", "jinja2", "typer", "click", "rich", "yaml", "aiohttp",
    "redis", "opentelemetry", "toktok", "llm_gateway.admin.api", "llm_gateway.config.schema", "llm_gateway.operator",
}  # fmt: skip
IMPORT_SECONDS = 0.2
# On a busy or slow machine: so many times what its own asyncio, ssl and argparse cost, measured in the same process. It is
# 0.03 s where the limit above was set.
IMPORT_RATIO = 6.5
IMPORT_MEGABYTES = 40
OPERATOR_SECONDS = 1.2
OPERATOR_RATIO = 22.0
# Loaded when somebody needs it: an update of the tables, an export, the other database, credentials of clouds.
NOT_AT_ONCE = {
    "alembic", "mako", "pyarrow", "asyncpg", "sqlalchemy.dialects.postgresql", "boto3", "botocore", "google.auth", "azure.identity", "hvac",
    "cryptography", "jwt", "redis", "numpy", "pytest",
}  # fmt: skip

MEASURE = """
import json, resource, sys, time
begun = time.process_time()
import asyncio, ssl, argparse
standard = time.process_time() - begun
import llm_gateway.MODULE
seconds = time.process_time() - begun
try:  # what getrusage says begins with the process this one was forked from
    resident = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / (1 << 20)
except FileNotFoundError:
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
print(json.dumps({"seconds": seconds, "ratio": seconds / standard, "megabytes": resident, "modules": sorted(sys.modules)}))
"""

# Python's audit events show what an import does: sockets, processes, files that are no code.
WATCH = """
import json, importlib, sys, os
sys.dont_write_bytecode = True  # Python's own doing, not an import's
done, allowed = [], tuple(map(os.path.realpath, {p for p in sys.path if p} | {sys.prefix, sys.base_prefix}))
def hook(event, args):
    if event.startswith(("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostby", "subprocess.", "os.system", "os.fork",
                         "os.posix_spawn", "os.mkdir", "os.remove", "os.rename", "os.putenv", "urllib.")):
        done.append([event, repr(args)[:200]])
    elif event == "open" and isinstance(args[0], str):
        path, mode = os.path.realpath(args[0]), args[1]
        if (isinstance(mode, str) and set(mode) & set("wax+")) and "__pycache__" not in path:
            done.append([event, path, mode])
        elif not path.startswith(allowed) and not path.startswith(("/proc/", "/etc/ssl", "/usr/", "/dev/null")):
            done.append([event, path, str(mode)])
sys.addaudithook(hook)
for name in json.loads(sys.argv[1]):
    before = dict(os.environ)
    importlib.import_module(name)
    if dict(os.environ) != before:
        done.append(["environment changed", name])
print(json.dumps(done))
"""


def run(code: str, *arguments: str) -> object:
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_import_law_holds():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[done.stdout.find("Contracts") :]


def test_a_worker_imports_little_and_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Importing, not compiling: the first run keeps the bytecode, as an installed gateway has it, whatever the machine is told.
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))
    runs = [run(MEASURE.replace("MODULE", "worker")) for _ in range(5)]
    best = min(runs, key=lambda each: each["seconds"])
    heavy = {name for name in best["modules"] if name in NOT_IN_A_WORKER or name.partition(".")[0] in NOT_IN_A_WORKER}
    assert not heavy
    assert best["seconds"] <= IMPORT_SECONDS or min(each["ratio"] for each in runs) <= IMPORT_RATIO
    assert best["megabytes"] <= IMPORT_MEGABYTES


def test_the_operator_is_soon_there_and_loads_later_what_it_needs_later(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    runs = [run(MEASURE.replace("MODULE", "operator")) for _ in range(3)]  # the first may compile
    best = min(runs, key=lambda each: each["seconds"])
    assert {name for name in best["modules"] if name in NOT_AT_ONCE} == set()
    assert best["seconds"] <= OPERATOR_SECONDS or min(each["ratio"] for each in runs) <= OPERATOR_RATIO


def test_the_supervisor_imports_the_standard_library_only():
    code = "import json, sys; import llm_gateway.supervisor.parent, llm_gateway.supervisor.plan; print(json.dumps(sorted(sys.modules)))"
    tops = {name.partition(".")[0] for name in run(code)} - set(sys.stdlib_module_names)
    given = {"sitecustomize"}  # some distributions' Python begins with it, whatever is imported
    assert {top for top in tops if not top.startswith(("_", "llm_gateway"))} - given == set()


def test_importing_does_nothing():
    assert run(WATCH, json.dumps(MODULES)) == []


def test_no_module_imports_itself_by_a_detour():
    graph = grimp.build_graph("llm_gateway", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    list(TopologicalSorter(imports).static_order())  # CycleError names the circle
