"""Settings of Kafka's clients: from the environment, checked, said back by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.settings import GenerateSettings, LearnedSettings, LearnSettings, RetrieveSettings
from schemas.errors import SettingsInvalid
from schemas.topics import DOCUMENTS, PROMPTS
from streams.settings import KafkaSettings, load
from streams.subscription import Subscription


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KafkaSettings.model_fields:
        monkeypatch.delenv(f"HEADWATER_KAFKA_{name.upper()}", raising=False)


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A file that can be read; what is in it matters only to a broker."""
    path = tmp_path / "any.pem"
    path.write_text("-----BEGIN CERTIFICATE-----")
    return path


def test_the_defaults_fit_a_broker_on_this_machine() -> None:
    config = load(KafkaSettings).client_config()
    assert config["bootstrap.servers"] == "localhost:9092"
    assert config["security.protocol"] == "PLAINTEXT"
    assert not any(name.startswith(("sasl.", "ssl.")) for name in config)


def test_the_environment_sets_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_KAFKA_BOOTSTRAP", "kafka:1")
    monkeypatch.setenv("HEADWATER_KAFKA_TOPIC_PREFIX", "test.")
    assert load(KafkaSettings).topic_name(PROMPTS) == "test.prompts"
    assert load(KafkaSettings).group_name("ingest") == "test.ingest"
    assert load(KafkaSettings).bootstrap == "kafka:1"
    assert load(KafkaSettings, bootstrap="other:2").bootstrap == "other:2"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECURITY_PROTOCOL", "foo"),
        ("SASL_MECHANISM", "GSSAPI"),
        ("CONNECT_TIMEOUT_S", "soon"),
        ("CONNECT_TIMEOUT_S", "0"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"HEADWATER_KAFKA_{name}", value)
    with pytest.raises(SettingsInvalid, match=f"HEADWATER_KAFKA_{name}: "):
        load(KafkaSettings)


def test_all_wrong_variables_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_GENERATE_SLOTS", "0")
    monkeypatch.setenv("HEADWATER_GENERATE_DTYPE", "int3")
    with pytest.raises(
        SettingsInvalid, match=r"HEADWATER_GENERATE_DTYPE.*HEADWATER_GENERATE_SLOTS"
    ):
        load(GenerateSettings)


def test_a_misspelt_argument_is_named() -> None:
    with pytest.raises(SettingsInvalid, match="HEADWATER_KAFKA_BOOTSTRAPS"):
        load(KafkaSettings, bootstraps="kafka:1")


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_a_login_needs_a_name_and_a_password(protocol: str) -> None:
    with pytest.raises(SettingsInvalid, match="HEADWATER_KAFKA_USERNAME and _PASSWORD"):
        load(KafkaSettings, security_protocol=protocol, username="reader")


def test_a_client_certificate_needs_its_key(pem: Path) -> None:
    with pytest.raises(SettingsInvalid, match="HEADWATER_KAFKA_CERT_FILE and _KEY_FILE"):
        load(KafkaSettings, security_protocol="SSL", cert_file=pem)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsInvalid, match=r"absent\.pem"):
        load(KafkaSettings, security_protocol="SSL", ca_file="absent.pem")


def test_a_login_over_tls_reaches_the_client(pem: Path) -> None:
    kafka = load(
        KafkaSettings,
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-256",
        username="reader",
        password="secret",
        ca_file=pem,
        cert_file=pem,
        key_file=pem,
        key_password="other secret",
    )
    config = kafka.client_config()
    assert config["sasl.mechanism"] == "SCRAM-SHA-256"
    assert (config["sasl.username"], config["sasl.password"]) == ("reader", "secret")
    assert config["ssl.ca.location"] == config["ssl.key.location"] == str(pem)
    assert config["ssl.key.password"] == "other secret"


def test_secrets_are_not_printed() -> None:
    kafka = load(
        KafkaSettings, security_protocol="SASL_PLAINTEXT", username="reader", password="hunter2"
    )
    assert "hunter2" not in f"{kafka!r} {kafka} {kafka.model_dump()}"
    assert "hunter2" not in repr(load(RetrieveSettings, qdrant_api_key="hunter2"))


def test_secrets_are_not_printed_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_KAFKA_PASSWORD", "hunter2")
    with pytest.raises(SettingsInvalid) as caught:
        load(KafkaSettings, security_protocol="SASL_SSL")
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(KafkaSettings).bootstrap = "elsewhere:1"  # type: ignore[misc]


@pytest.mark.parametrize("position", ["junk", "[1]", '{"a": 1}', '{"0": null}', '{"0": "x"}', "7"])
def test_a_position_that_is_none_is_refused(position: str) -> None:
    with pytest.raises(SettingsInvalid, match="is no position"):
        Subscription(load(KafkaSettings), DOCUMENTS, resume=position)


def test_a_wrong_setting_of_learn_is_no_concern_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_LEARN_RANK", "many")
    assert load(LearnedSettings).adapter == "default"
    with pytest.raises(SettingsInvalid, match="HEADWATER_LEARN_RANK"):
        load(LearnSettings)
