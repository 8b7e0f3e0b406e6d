"""What an operator may set of the gateway."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.limits import MAX_TOKENS_MAX, TOP_K_MAX


class GatewaySettings(BaseSettings):
    """Reads `HEADWATER_GATEWAY_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_GATEWAY_", frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1",
        description="address to listen on; others than this machine's own need API keys",
    )
    port: int = Field(8080, ge=1, le=65535, description="port to listen on")
    model: str = Field(
        "headwater",
        min_length=1,
        description="the name that requests call the river's model by; several with commas",
    )
    keys_file: Path = Field(
        Path(".headwater/gateway/keys.json"),
        description="API keys, hashed; once it exists every request needs one",
    )
    stream_key: SecretStr | None = Field(
        None, description="secret behind the ids of streamed events, the same for all gateways"
    )
    stream_key_file: Path = Field(
        Path(".headwater/gateway/stream.key"),
        description="where the secret is without the setting above; made when there is none",
    )
    requests_per_minute: int = Field(
        600, ge=1, description="of one API key, where the key names no other number"
    )
    requests_open_max: int = Field(1000, ge=1, description="answers under way together")
    body_bytes_max: int = Field(2_097_152, ge=1024, description="largest request")
    tokens_default: int = Field(
        256, ge=1, le=MAX_TOKENS_MAX, description="longest answer where a request names none"
    )
    passages: int = Field(
        4, ge=0, le=TOP_K_MAX, description="passages found where a request names no number"
    )
    silence_s: float = Field(
        120.0, gt=0, description="longest wait for the next piece of an answer"
    )
    resume_s: float = Field(
        5.0, ge=0, description="how long a broken stream may be resumed before it is cancelled"
    )
    ping_s: float = Field(15.0, gt=0, description="a silent stream shows a sign of life so often")
    stop_s: int = Field(5, ge=0, description="time for open requests to end at a stop")
    page: bool = Field(True, description="whether the live page is served, at `/ui`")
    cors_origins: str = Field(
        "", description="web pages of other origins that may call it, with commas; `*` for all"
    )

    @property
    def models(self) -> list[str]:
        """The names in `model`."""
        return [name.strip() for name in self.model.split(",") if name.strip()]
