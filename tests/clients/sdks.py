"""The providers' own Python SDKs, asked the same six things as the frameworks in `adapters`."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import boto3
import ollama
import openai
from botocore.config import Config
from botocore.exceptions import ClientError
from google import genai
from google.genai import errors as google_errors
from google.genai import types as google

from clients.adapters import ASK, PARAMETERS, PICTURE, PNG, Calls, Gateway


class OpenAI:
    def __init__(self, gateway: Gateway) -> None:
        self._sdk = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0)

    def _ask(self, model: str, content: Any = ASK, **more: Any) -> Any:
        return self._sdk.chat.completions.create(model=model, messages=[{"role": "user", "content": content}], **more)

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


class Responses(OpenAI):
    def _answer(self, model: str, content: Any = ASK, **more: Any) -> Any:
        return self._sdk.responses.create(model=model, input=content, **more)

    def say(self, model: str) -> str:
        return str(self._answer(model).output_text)

    def stream(self, model: str) -> str:
        with self._sdk.responses.stream(model=model, input=ASK) as stream:
            return str(stream.get_final_response().output_text)

    def call(self, model: str) -> Calls:
        tool = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
        return [(item.name, json.loads(item.arguments)) for item in self._answer(model, tools=[tool]).output if item.type == "function_call"]

    def shape(self, model: str) -> Any:
        wanted = {"format": {"type": "json_schema", "name": "answer", "schema": PARAMETERS, "strict": True}}
        return json.loads(self._answer(model, text=wanted).output_text)

    def see(self, model: str) -> str:
        parts = [{"type": "input_text", "text": ASK}, {"type": "input_image", "image_url": PICTURE, "detail": "auto"}]
        return str(self._answer(model, [{"role": "user", "content": parts}]).output_text)


class Anthropic:
    def __init__(self, gateway: Gateway) -> None:
        self._sdk = anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0)

    def _ask(self, model: str, content: Any = ASK, **more: Any) -> Any:
        return self._sdk.messages.create(model=model, max_tokens=500, messages=[{"role": "user", "content": content}], **more)

    def say(self, model: str) -> str:
        return "".join(block.text for block in self._ask(model).content if block.type == "text")

    def stream(self, model: str) -> str:
        with self._sdk.messages.stream(model=model, max_tokens=500, messages=[{"role": "user", "content": ASK}]) as stream:
            return "".join(stream.text_stream)

    def call(self, model: str) -> Calls:
        tool = {"name": "weather", "input_schema": PARAMETERS}
        return [(block.name, block.input) for block in self._ask(model, tools=[tool]).content if block.type == "tool_use"]

    def shape(self, model: str) -> Any:
        wanted = {"format": {"type": "json_schema", "schema": PARAMETERS}}
        return json.loads("".join(block.text for block in self._ask(model, output_config=wanted).content if block.type == "text"))

    def see(self, model: str) -> str:
        source = {"type": "base64", "media_type": "image/png", "data": PICTURE.partition(",")[2]}
        reply = self._ask(model, [{"type": "text", "text": ASK}, {"type": "image", "source": source}])
        return "".join(block.text for block in reply.content if block.type == "text")

    def status(self, error: Exception) -> int:
        return int(getattr(error, "status_code", 0))


class Google:
    def __init__(self, gateway: Gateway) -> None:
        self._sdk = genai.Client(api_key=gateway.key, http_options=google.HttpOptions(base_url=gateway.url))

    def _ask(self, model: str, contents: Any = ASK, **config: Any) -> Any:
        return self._sdk.models.generate_content(model=model, contents=contents, config=google.GenerateContentConfig(**config))

    def say(self, model: str) -> str:
        return self._ask(model).text or ""

    def stream(self, model: str) -> str:
        return "".join(chunk.text or "" for chunk in self._sdk.models.generate_content_stream(model=model, contents=ASK))

    def call(self, model: str) -> Calls:
        declared = google.FunctionDeclaration(name="weather", parameters_json_schema=PARAMETERS)
        off = google.AutomaticFunctionCallingConfig(disable=True)
        reply = self._ask(model, tools=[google.Tool(function_declarations=[declared])], automatic_function_calling=off)
        return [(each.name, each.args) for each in reply.function_calls or []]

    def shape(self, model: str) -> Any:
        return json.loads(self._ask(model, response_mime_type="application/json", response_json_schema=PARAMETERS).text)

    def see(self, model: str) -> str:
        return self._ask(model, [ASK, google.Part.from_bytes(data=PNG, mime_type="image/png")]).text or ""

    def status(self, error: Exception) -> int:
        return error.code if isinstance(error, google_errors.APIError) else 0


class Boto:
    """Signs with a key that the gateway made. Converse asks for structured output by a tool, as its users do."""

    def __init__(self, gateway: Gateway, key: str, secret: str) -> None:
        config = Config(retries={"max_attempts": 1, "mode": "standard"})
        self._sdk = boto3.client(
            "bedrock-runtime", region_name="us-east-1", endpoint_url=gateway.url, aws_access_key_id=key, aws_secret_access_key=secret, config=config
        )

    def _ask(self, model: str, *content: Any, **more: Any) -> list[Any]:
        asked = [{"role": "user", "content": [{"text": ASK}, *content]}]
        return list(self._sdk.converse(modelId=model, messages=asked, **more)["output"]["message"]["content"])

    def say(self, model: str) -> str:
        return "".join(block.get("text", "") for block in self._ask(model))

    def stream(self, model: str) -> str:
        events = self._sdk.converse_stream(modelId=model, messages=[{"role": "user", "content": [{"text": ASK}]}])["stream"]
        return "".join(event["contentBlockDelta"]["delta"].get("text", "") for event in events if "contentBlockDelta" in event)

    def _tools(self) -> dict[str, Any]:
        return {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": PARAMETERS}}}]}

    def call(self, model: str) -> Calls:
        content = self._ask(model, toolConfig=self._tools())
        return [(block["toolUse"]["name"], block["toolUse"]["input"]) for block in content if "toolUse" in block]

    def shape(self, model: str) -> Any:
        content = self._ask(model, toolConfig=self._tools() | {"toolChoice": {"any": {}}})
        return json.loads("".join(block.get("text", "") for block in content))

    def see(self, model: str) -> str:
        content = self._ask(model, {"image": {"format": "png", "source": {"bytes": PNG}}})
        return "".join(block.get("text", "") for block in content)

    def status(self, error: Exception) -> int:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"]) if isinstance(error, ClientError) else 0


class Ollama:
    def __init__(self, gateway: Gateway) -> None:
        self._sdk = ollama.Client(host=gateway.url, headers={"Authorization": f"Bearer {gateway.key}"})

    def _ask(self, model: str, images: Any = None, **more: Any) -> Any:
        return self._sdk.chat(model=model, messages=[{"role": "user", "content": ASK, "images": images}], **more)

    def say(self, model: str) -> str:
        return self._ask(model).message.content or ""

    def stream(self, model: str) -> str:
        return "".join(part.message.content or "" for part in self._ask(model, stream=True))

    def call(self, model: str) -> Calls:
        tool = {"type": "function", "function": {"name": "weather", "description": "x", "parameters": PARAMETERS}}
        return [(each.function.name, dict(each.function.arguments)) for each in self._ask(model, tools=[tool]).message.tool_calls or []]

    def shape(self, model: str) -> Any:
        return json.loads(self._ask(model, format=PARAMETERS).message.content)

    def see(self, model: str) -> str:
        return self._ask(model, [PNG]).message.content or ""

    def status(self, error: Exception) -> int:
        return error.status_code if isinstance(error, ollama.ResponseError) else 0
