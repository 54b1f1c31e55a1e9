"""What values of config.yaml may look like, whatever section they stand in: times, sizes, ports, and what a section is."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from llm_gateway.core.headers import sendable

DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
SIZE = re.compile(r"(\d+)\s*(B|KB|MB|GB|KiB|MiB|GiB)?", re.IGNORECASE)
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
SECONDS_PER = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
BYTES_PER = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def parse_seconds(value: Any) -> Any:
    """Numbers are seconds; text may carry a unit: "500ms", "10s", "5m", "1h"."""
    if isinstance(value, str):
        found = DURATION.fullmatch(value.strip())
        if found is None:
            raise ValueError('expected seconds, or a number with a unit such as "500ms", "10s", "5m"')
        return float(found[1]) * SECONDS_PER[found[2] or "s"]
    return value


def parse_bytes(value: Any) -> Any:
    if isinstance(value, str):
        found = SIZE.fullmatch(value.strip())
        if found is None:
            raise ValueError('expected bytes, or a number with a unit such as "32MiB", "64KiB"')
        return int(found[1]) * BYTES_PER[(found[2] or "B").lower()]
    return value


def parse_level(value: Any) -> Any:
    """RUST_LOG's habits are understood: any case, "warning", and "info,module=debug", whose bare word counts."""
    if not isinstance(value, str):
        return value
    words = [word.strip().lower() for word in value.split(",")]
    bare = [word for word in words if "=" not in word] or [words[0].partition("=")[2]]
    return {"warning": "warn", "off": "error"}.get(bare[-1], bare[-1])


def parse_workers(value: Any) -> Any:
    return 0 if value == "auto" else value


def readable(url: str) -> str:
    """Who connects takes it apart in the same way, and a worker that cannot does not start."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError("expected host:port with a port up to 65535; `/`, `@` and `:` in a password are written %2F, %40 and %3A") from None
    return url


def parse_trimmed(value: Any) -> Any:
    """Variables often end in a line break."""
    return value.strip() if isinstance(value, str) else value


def fit(value: SecretStr) -> SecretStr:
    if not sendable(value.get_secret_value()):
        raise ValueError("holds a line break, or another character that is not printable ASCII: no header can carry it")
    return value


def parse_headers(value: dict[str, str]) -> dict[str, str]:
    found = {name: text.strip() for name, text in value.items()}
    if not all(TOKEN.fullmatch(name) and not CONTROL.search(text) for name, text in found.items()):
        raise ValueError("a name holds more than letters, digits and `-`, or a value a line break or another control character")
    return found


Workers = Annotated[int, BeforeValidator(parse_workers), Field(ge=0, le=256, json_schema_extra={"x-text": True})]
Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(ge=0, json_schema_extra={"x-text": True})]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=1, json_schema_extra={"x-text": True})]
Port = Annotated[int, Field(ge=0, le=65535)]
Level = Annotated[Literal["trace", "debug", "info", "warn", "error"], BeforeValidator(parse_level)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Modality = Literal["text", "image", "audio", "video", "document"]
Credential = Annotated[SecretStr, BeforeValidator(parse_trimmed), AfterValidator(fit)]
Headers = Annotated[dict[str, str], AfterValidator(parse_headers)]
Url = Annotated[str, Field(pattern=r"^(https?|echo)://[^\s/?#]+[^\s?#]*$"), AfterValidator(readable)]


class Section(BaseModel):
    # Built when something is first read by it: the operator starts with what the supervisor has read, and reads anew only what changed.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)
