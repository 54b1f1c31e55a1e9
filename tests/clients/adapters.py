"""Six things that every client library is asked to do, each in that library's own words.

Law: what a user would write, pointed at the gateway; nothing of the gateway is imported. `say`, `stream` -> text; `call` -> tool calls
as (name, arguments); `shape` -> the JSON value of a structured answer; `see` sends a picture and returns text; each raises on an error
reply. `status` tells the HTTP status of what was raised.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import litellm
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic_ai import BinaryContent, ModelRequest
from pydantic_ai.direct import model_request_stream_sync, model_request_sync
from pydantic_ai.messages import TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition

ASK = "What is the weather in Paris?"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PICTURE = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
Calls = list[tuple[str, Any]]


@dataclass
class Gateway:
    url: str
    key: str


class LiteLLM:
    """LiteLLM as a library. `provider`: which of its own shapes it speaks to us in."""

    def __init__(self, gateway: Gateway, provider: str) -> None:
        base = gateway.url if provider == "anthropic" else f"{gateway.url}/v1"
        self._common = {"api_base": base, "api_key": gateway.key, "num_retries": 0, "max_tokens": 500}
        self._prefix = provider

    def _ask(self, model: str, content: Any = ASK, **more: Any) -> Any:
        return litellm.completion(f"{self._prefix}/{model}", [{"role": "user", "content": content}], **self._common, **more)

    def say(self, model: str) -> str:
        return self._ask(model).choices[0].message.content or ""

    def stream(self, model: str) -> str:
        return "".join(chunk.choices[0].delta.content or "" for chunk in self._ask(model, stream=True) if chunk.choices)

    def call(self, model: str) -> Calls:
        tool = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
        made = self._ask(model, tools=[tool]).choices[0].message.tool_calls or []
        return [(each.function.name, json.loads(each.function.arguments or "{}")) for each in made]

    def shape(self, model: str) -> Any:
        wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": PARAMETERS, "strict": True}}
        return json.loads(self._ask(model, response_format=wanted).choices[0].message.content)

    def see(self, model: str) -> str:
        content = [{"type": "text", "text": ASK}, {"type": "image_url", "image_url": {"url": PICTURE}}]
        return self._ask(model, content).choices[0].message.content or ""

    def status(self, error: Exception) -> int:
        return int(getattr(error, "status_code", 0))


class LangChain:
    """`kind`: one of its chat models."""

    def __init__(self, gateway: Gateway, kind: str) -> None:
        self._gateway = gateway
        self._kind = kind

    def _model(self, model: str) -> Any:
        gateway = self._gateway
        if self._kind == "anthropic":
            return ChatAnthropic(model=model, base_url=gateway.url, api_key=gateway.key, max_retries=0, max_tokens=500)
        responses = self._kind == "responses"
        return ChatOpenAI(model=model, base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, use_responses_api=responses)

    def say(self, model: str) -> str:
        return str(self._model(model).invoke(ASK).text)

    def stream(self, model: str) -> str:
        return "".join(str(chunk.text) for chunk in self._model(model).stream(ASK))

    def call(self, model: str) -> Calls:
        tool = {"type": "function", "function": {"name": "weather", "description": "x", "parameters": PARAMETERS}}
        return [(each["name"], each["args"]) for each in self._model(model).bind_tools([tool]).invoke(ASK).tool_calls]

    def shape(self, model: str) -> Any:
        schema = {"title": "answer", "description": "an answer", **PARAMETERS}
        return self._model(model).with_structured_output(schema, method="json_schema").invoke(ASK)

    def see(self, model: str) -> str:
        content = [{"type": "text", "text": ASK}, {"type": "image_url", "image_url": {"url": PICTURE}}]
        return str(self._model(model).invoke([HumanMessage(content)]).text)

    def status(self, error: Exception) -> int:
        cause = error.__cause__ or error
        return int(getattr(error, "status_code", 0) or getattr(cause, "status_code", 0) or getattr(cause, "code", 0))


class PydanticAI:
    """`kind`: one of its models; asked directly, without an agent's loop."""

    def __init__(self, gateway: Gateway, kind: str) -> None:
        self._gateway = gateway
        self._kind = kind

    def _model(self, model: str) -> Any:
        gateway = self._gateway
        if self._kind == "anthropic":
            profile = ModelProfile(supports_json_schema_output=True)  # it goes by names, and knows none of ours
            return AnthropicModel(model, provider=AnthropicProvider(base_url=gateway.url, api_key=gateway.key), profile=profile)
        provider = OpenAIProvider(base_url=f"{gateway.url}/v1", api_key=gateway.key)
        return (OpenAIResponsesModel if self._kind == "responses" else OpenAIChatModel)(model, provider=provider)

    def _ask(self, model: str, *content: Any, **parameters: Any) -> Any:
        asked = ModelRequest(parts=[UserPromptPart(content=[ASK, *content])])
        return model_request_sync(self._model(model), [asked], model_request_parameters=ModelRequestParameters(**parameters))

    def say(self, model: str) -> str:
        return _text(self._ask(model))

    def stream(self, model: str) -> str:
        with model_request_stream_sync(self._model(model), [ModelRequest.user_text_prompt(ASK)]) as stream:
            for _ in stream:
                pass
            return _text(stream.response)

    def call(self, model: str) -> Calls:
        tool = ToolDefinition(name="weather", parameters_json_schema=PARAMETERS)
        parts = self._ask(model, function_tools=[tool]).parts
        return [(part.tool_name, part.args_as_dict()) for part in parts if isinstance(part, ToolCallPart)]

    def shape(self, model: str) -> Any:
        wanted = OutputObjectDefinition(json_schema=PARAMETERS, name="answer", strict=True)
        return json.loads(_text(self._ask(model, output_mode="native", output_object=wanted, allow_text_output=True)))

    def see(self, model: str) -> str:
        return _text(self._ask(model, BinaryContent(PNG, media_type="image/png")))

    def status(self, error: Exception) -> int:
        return int(getattr(error, "status_code", 0))


def _text(reply: Any) -> str:
    return "".join(part.content for part in reply.parts if isinstance(part, TextPart))


def clients(gateway: Gateway) -> dict[str, Any]:
    return {
        "litellm-openai": LiteLLM(gateway, "openai"),
        "litellm-anthropic": LiteLLM(gateway, "anthropic"),
        "langchain-openai": LangChain(gateway, "openai"),
        "langchain-responses": LangChain(gateway, "responses"),
        "langchain-anthropic": LangChain(gateway, "anthropic"),
        "pydantic-ai-openai": PydanticAI(gateway, "openai"),
        "pydantic-ai-responses": PydanticAI(gateway, "responses"),
        "pydantic-ai-anthropic": PydanticAI(gateway, "anthropic"),
    }


NAMES = (
    "litellm-openai", "litellm-anthropic", "langchain-openai", "langchain-responses", "langchain-anthropic",
    "pydantic-ai-openai", "pydantic-ai-responses", "pydantic-ai-anthropic",
)  # fmt: skip
