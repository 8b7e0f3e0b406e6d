"""How Flink's connector, a Java client, reaches the broker that KafkaSettings describe."""

from __future__ import annotations

from typing import Final

from pydantic import SecretStr

from streams.settings import KafkaSettings

# The connector's jar has Kafka's classes under a name of its own.
_LOGIN: Final = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security"


def kafka_options(kafka: KafkaSettings) -> dict[str, str]:
    """Options of the SQL connector, secrets included: never to be logged."""
    options = {
        "bootstrap.servers": kafka.bootstrap,
        "security.protocol": kafka.security_protocol,
    }
    if kafka.uses_sasl:
        options["sasl.mechanism"] = kafka.sasl_mechanism
        options["sasl.jaas.config"] = _jaas(kafka)
    if kafka.uses_tls:
        options |= _tls(kafka)
    return {f"properties.{name}": value for name, value in options.items()}


def _jaas(kafka: KafkaSettings) -> str:
    module = "plain.PlainLoginModule"
    if kafka.sasl_mechanism.startswith("SCRAM"):
        module = "scram.ScramLoginModule"
    user, password = _escaped(kafka.username or ""), _escaped(_revealed(kafka.password))
    return f'{_LOGIN}.{module} required username="{user}" password="{password}";'


def _tls(kafka: KafkaSettings) -> dict[str, str]:
    """Certificates as text, so that a cluster needs no files of ours."""
    options = {}
    if kafka.ca_file is not None:
        options["ssl.truststore.type"] = "PEM"
        options["ssl.truststore.certificates"] = kafka.ca_file.read_text("utf-8")
    if kafka.cert_file is not None and kafka.key_file is not None:
        options["ssl.keystore.type"] = "PEM"
        options["ssl.keystore.certificate.chain"] = kafka.cert_file.read_text("utf-8")
        options["ssl.keystore.key"] = kafka.key_file.read_text("utf-8")
        if kafka.key_password is not None:
            options["ssl.key.password"] = _revealed(kafka.key_password)
    return options


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _revealed(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""
