"""What is read from a request before a target is chosen: sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.accounting.estimate import IMAGE_TOKENS, prompt_tokens
from llm_gateway.admission import bounds
from llm_gateway.core.types import Usage
from llm_gateway.formats import jobs
from llm_gateway.routing import ask
from llm_gateway.routing.table import Table
from routing.conftest import asked


@given(st.lists(st.text(max_size=400), max_size=40))
def test_a_size_is_never_below_the_estimate_of_text_by_more_than_nothing(texts: list[str]) -> None:
    x = asked("m", body={"messages": [{"role": "user", "content": f"{text} "} for text in texts]})
    assert ask.size(x) >= min(prompt_tokens(x.body), len(x.body) // 4)
    assert not x.prompt_estimate or ask.size(x) == x.prompt_estimate


@pytest.mark.parametrize("megabytes", [0.005, 0.02, 1.0])
def test_data_counts_as_an_image_whatever_its_length_and_its_marks(megabytes: float) -> None:
    data = "A" * int(megabytes * 1e6)
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    x = asked("m", body={"messages": [{"role": "user", "content": [{"type": "text", "text": "what is this? " * 9}, url]}]})
    assert IMAGE_TOKENS <= ask.size(x) <= IMAGE_TOKENS + 100
    if megabytes < 0.03:
        x = asked("m", body={"messages": [{"role": "user", "content": "what is this?", "images": [data]}]})
        assert IMAGE_TOKENS <= ask.size(x) <= IMAGE_TOKENS + 100, "without a mark"


def test_long_text_is_taken_for_its_length() -> None:
    x = asked("m", body={"messages": [{"role": "user", "content": "some words " * 2000}]})
    assert ask.size(x) == len(x.body) // 4 + 1
    assert not x.prompt_estimate, "nobody took it apart"


@pytest.mark.parametrize("size", [3_000, 3_000_000])
def test_a_picture_to_be_edited_is_bound_by_what_it_can_be_not_by_its_bytes(table: Callable[..., Table], size: int) -> None:
    parts = {"prompt": b"a hat", "model": b"gpt-image-1", 'image"; filename="a.png': b"\x89PNG" * (size // 4)}
    form = b"".join(b'--edge\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), part) for name, part in parts.items())
    shape = next(each for each in jobs.shapes() if each.name == "openai_image_edits")
    x = asked("openai/gpt-image-1", "images")
    x.body = form + b"--edge--\r\n"
    x.peek = shape.peek(x.body)
    targets = table("providers:\n  openai: {api_key: k}\n").plan("openai/gpt-image-1", "images").targets(0)
    dearest = targets[0].price(Usage(input=ask.PICTURE, image_input=ask.PICTURE, output=8192, image_output=8192), x.wall)
    bound = bounds.cost(x, targets, None)
    assert size < ask.LARGE or dearest <= bound < 1.2 * dearest
    assert bound < 1.2 * dearest
