"""How every client of Kafka reaches the broker: one frozen class."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import SettingsInvalid
from schemas.topics import Topic

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
S = TypeVar("S", bound=BaseSettings)


class KafkaSettings(BaseSettings):
    """Address, security and topic names. Reads `HEADWATER_KAFKA_*`; secrets never print."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_KAFKA_", frozen=True, extra="forbid")

    bootstrap: str = Field("localhost:9092", description="host:port of one or more brokers")
    topic_prefix: str = Field("headwater.", description="put before every topic and group name")
    security_protocol: SecurityProtocol = Field("PLAINTEXT", description="transport and login")
    sasl_mechanism: SaslMechanism = Field("SCRAM-SHA-512", description="how to log in with SASL")
    username: str | None = Field(None, description="SASL user")
    password: SecretStr | None = Field(None, description="SASL password")
    ca_file: Path | None = Field(None, description="CA that signed the broker's certificate (PEM)")
    cert_file: Path | None = Field(None, description="client certificate for mTLS (PEM)")
    key_file: Path | None = Field(None, description="private key of the client certificate (PEM)")
    key_password: SecretStr | None = Field(None, description="password of the private key")
    connect_timeout_s: float = Field(10.0, gt=0, description="how long to wait for a broker")

    @model_validator(mode="after")
    def _complete(self) -> KafkaSettings:
        if self.uses_sasl and (self.username is None or self.password is None):
            raise ValueError(
                f"{self.security_protocol} needs HEADWATER_KAFKA_USERNAME and _PASSWORD"
            )
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("mTLS needs both HEADWATER_KAFKA_CERT_FILE and _KEY_FILE")
        for path in (self.ca_file, self.cert_file, self.key_file):
            if path is not None and not path.is_file():
                raise ValueError(f"{path} is no readable file")
        return self

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL_")

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    def topic_name(self, topic: Topic) -> str:
        """The name on the broker."""
        return self.topic_prefix + topic.name

    def group_name(self, name: str) -> str:
        """The name of a consumer group on the broker."""
        return self.topic_prefix + name

    def client_config(self) -> dict[str, Any]:
        """What every librdkafka client (producer, consumer, admin) needs to connect."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.security_protocol,
            "socket.keepalive.enable": True,
            "socket.nagle.disable": True,
            "reconnect.backoff.max.ms": 1_000,
            # A topic that was only just created must be seen at once.
            "topic.metadata.refresh.sparse": True,
            "log_level": 2,
        }
        if self.uses_sasl:
            config["sasl.mechanism"] = self.sasl_mechanism
            config["sasl.username"] = self.username
            config["sasl.password"] = _revealed(self.password)
        if self.uses_tls:
            paths = {
                "ssl.ca.location": self.ca_file,
                "ssl.certificate.location": self.cert_file,
                "ssl.key.location": self.key_file,
            }
            config |= {name: str(path) for name, path in paths.items() if path is not None}
            if self.key_password is not None:
                config["ssl.key.password"] = _revealed(self.key_password)
        return config

    def ssl_context(self) -> ssl.SSLContext:
        """The same TLS settings for clients that take a Python context (Faust)."""
        context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        if self.cert_file and self.key_file:
            context.load_cert_chain(self.cert_file, self.key_file, _revealed(self.key_password))
        return context


def load(kind: type[S], **overrides: Any) -> S:
    """Settings from the environment; SettingsInvalid names each wrong variable."""
    try:
        return kind(**overrides)
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        problems = "; ".join(
            f"{prefix}{'.'.join(map(str, item['loc']))}".upper() + f": {item['msg']}"
            if item["loc"]
            else item["msg"]
            for item in error.errors(include_input=False, include_url=False)
        )
        raise SettingsInvalid(
            f"Settings are wrong: {problems}.", "The README's settings table lists them all."
        ) from None


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
