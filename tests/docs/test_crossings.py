"""docs/crossings.md says what the tables say, and what it says of a field is what happens to it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from docs.blocks import ROOT
from llm_gateway.core.errors import Fault
from llm_gateway.formats import crossings, embedding_crossings
from llm_gateway.wiring import formats

PAGE = ROOT / "docs" / "crossings.md"
# A value of each field that asks for something, in OpenAI's words.
ASKING = {
    "top_k": 5, "min_p": 0.1, "frequency_penalty": 0.5, "presence_penalty": 0.5, "seed": 1, "n": 2, "logprobs": True, "logit_bias": {"1": 2},
    "modalities": ["text", "audio"], "metadata": {"a": "b"}, "verbosity": "low", "user": "ann", "parallel_tool_calls": False,
    "response_format": {"type": "json_object"}, "service_tier": "flex", "tools": [{"type": "function", "function": {"name": "f"}}],
}  # fmt: skip
OURS = {"parallel_tool_calls": "parallel_tools", "response_format": "output"}


def cells() -> dict[str, list[str]]:
    lines = PAGE.read_text(encoding="utf-8").split("## Conversations")[1].split("\n\n")[1].splitlines()
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0][1:] == list(crossings.COLUMNS)
    return {row[0]: row[1:] for row in rows[2:]}


def test_the_page_is_current():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "crossings_docs.py", "--check"], check=False)
    assert done.returncode == 0, "run scripts/crossings_docs.py"


def test_every_row_and_every_shape_is_told():
    page = PAGE.read_text(encoding="utf-8")
    for table in (crossings, embedding_crossings):
        assert all(f"| `{row.field}` |" in page for row in table.TABLE)
        assert all(f"`{shape}`" in page for shape in table.COLUMNS)


@pytest.mark.parametrize("field", ASKING)
@pytest.mark.parametrize("target", [name for name in crossings.COLUMNS if name != "openai_chat"])
def test_what_the_page_says_of_a_field_is_what_happens_to_it(field, target):
    shapes = formats()
    said = cells()[OURS.get(field, field)][list(crossings.COLUMNS).index(target)]
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], field: ASKING[field]}
    call = shapes["openai_chat"].read_request(shapes["openai_chat"].peek(json.dumps(body).encode()))
    try:
        sent = shapes[target].write_request(call, "m")
    except Fault as fault:
        assert (said, fault.param) == ("**400**", field)  # noqa: PT017  raising is what the page may say
        return
    assert (said == "—") <= (field in sent.dropped)
    assert (said == "kept") <= (field not in sent.dropped)
    assert said != "**400**"
