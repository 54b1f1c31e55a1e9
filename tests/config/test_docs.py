"""docs/configuration.md says what the schema says, and its examples load."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llm_gateway.config.load import VARIABLES
from llm_gateway.config.problems import dotted
from llm_gateway.config.schema_json import document, options

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_table_of_options_is_current():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "configuration_docs.py", "--check"], check=False)
    assert done.returncode == 0, "run scripts/configuration_docs.py"


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_load(compile_text, text):
    assert compile_text(text, OPENAI_API_KEY="a", ANTHROPIC_KEY_A="b", ANTHROPIC_KEY_B="c").snapshot.providers


def test_there_are_examples():
    assert len(EXAMPLES) == 4


def test_every_variable_is_named():
    for variable, path in VARIABLES:
        assert f"`{variable}`" in PAGE
        assert f"`{dotted(path)}`" in PAGE


def test_every_option_is_described():
    assert [name for name, _, description in options() if len(description) < 4] == []


def test_the_json_schema_admits_references_and_short_forms():
    schema = document()
    text = json.dumps(schema)
    assert "x-text" not in text
    assert schema["additionalProperties"] is False
    port = schema["$defs"]["Server"]["properties"]["port"]
    assert {"type": "integer", "maximum": 65535, "minimum": 0} in port["anyOf"]
    assert any(each.get("pattern") == r"\$\{|^file:" for each in port["anyOf"])
    assert {"type": "string"} in schema["$defs"]["Alias"]["anyOf"]
    assert {"type": "boolean"} in schema["$defs"]["Entra"]["anyOf"]
