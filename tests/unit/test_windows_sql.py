"""The windows' SQL as it is written out, and what Flink is told beside it."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

import numpy as np
import pytest

from infra.flink.job import WORK, newest_checkpoint
from infra.flink.provision import FlinkDistribution
from infra.flink.run import become_flink
from models.sketch import SKETCH_NUMBERS, sketches
from schemas import events
from schemas.errors import SettingsInvalid
from streams.settings import KafkaSettings, load
from streams.windows.kafka_options import kafka_options
from streams.windows.render import FOLDER, fingerprint, render, split
from streams.windows.settings import JOBS, AnalyticsSettings

SETTINGS = AnalyticsSettings()


def test_every_file_is_written_out_with_every_name_replaced() -> None:
    text = "\n".join(render("river.", {}, SETTINGS))
    assert "${" not in text
    assert "'river.generations'" in text
    files = {path.stem for path in FOLDER.glob("*.sql")}
    assert files == {"tables", "views", "analytics", *JOBS}


def test_each_statistic_is_a_view_whose_name_readers_know() -> None:
    views = {view for made in JOBS.values() for view in made}
    known = {value for name, value in vars(events).items() if name.isupper()}
    assert views <= known
    statements = render("river.", {}, SETTINGS)
    for view in views:
        assert any(re.match(rf"CREATE TEMPORARY VIEW `?{view}`? AS", each) for each in statements)
        assert f"SELECT * FROM `{view}`" in statements[-1]


def test_only_the_jobs_that_are_asked_for_are_run() -> None:
    statements = render("river.", {}, AnalyticsSettings(jobs="quality,privacy"))
    assert "`drift`" not in statements[-1]
    assert "`quality`" in statements[-1]


def test_a_job_that_nobody_knows_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="unknown: qualty"):
        load(AnalyticsSettings, jobs="qualty")


def test_lengths_are_intervals_that_flink_reads() -> None:
    text = "\n".join(render("river.", {}, AnalyticsSettings(window_s=86_400, state_s=86_400)))
    assert "INTERVAL '1 00:00:00' DAY(2) TO SECOND" in text
    assert "INTERVAL '0 00:00:10' DAY(2) TO SECOND" in text


def test_statements_end_at_semicolons_and_comments_are_left_out() -> None:
    assert split("-- why; so\nSELECT ';' AS a;\n\nSELECT 2;\n") == ["SELECT ';' AS a", "SELECT 2"]


def test_state_fits_the_very_same_jobs_only() -> None:
    before = fingerprint("river.", SETTINGS)
    assert before == fingerprint("river.", AnalyticsSettings(heap_mib=512))
    assert before != fingerprint("river.", AnalyticsSettings(window_s=30))
    assert before != fingerprint("other.", SETTINGS)


def test_passwords_are_quoted_for_java_and_for_sql() -> None:
    kafka = KafkaSettings(
        security_protocol="SASL_PLAINTEXT", username="river", password='it\'s "q" \\'
    )
    options = kafka_options(kafka)
    assert options["properties.sasl.jaas.config"].endswith(
        'ScramLoginModule required username="river" password="it\'s \\"q\\" \\\\";'
    )
    (table,) = [each for each in render("r.", options, SETTINGS) if "feedback_topic (" in each]
    assert "password=\"it''s " in table


def test_tls_goes_as_text(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("-----BEGIN CERTIFICATE-----\n")
    kafka = KafkaSettings(security_protocol="SSL", ca_file=authority)
    options = kafka_options(kafka)
    assert options["properties.ssl.truststore.type"] == "PEM"
    assert options["properties.ssl.truststore.certificates"] == authority.read_text()


def test_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for number, whole in ((1, True), (2, True), (3, False)):
        folder = tmp_path / "job" / f"chk-{number}"
        folder.mkdir(parents=True)
        if whole:
            (folder / "_metadata").write_bytes(b"state")
    assert newest_checkpoint(tmp_path) == tmp_path / "job" / "chk-2"


def test_sketches_keep_distances_between_means() -> None:
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(2_000, 384)).astype(np.float32)
    vectors[1_000:, 0] += 8.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = np.array(sketches(vectors))
    assert made.shape == (2_000, SKETCH_NUMBERS)
    apart = np.linalg.norm(vectors[:1_000].mean(0) - vectors[1_000:].mean(0))
    seen = np.linalg.norm(made[:1_000].mean(0) - made[1_000:].mean(0))
    assert 0.5 < seen / apart < 1.5


def test_a_folder_in_use_is_refused_and_its_files_stay(tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    nowhere = tmp_path / "flink"
    flink = FlinkDistribution(nowhere, nowhere, nowhere, nowhere)
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SettingsInvalid, match="HEADWATER_ANALYTICS_CHECKPOINTS"):
            become_flink(flink, KafkaSettings(), SETTINGS, tmp_path)
    assert (tmp_path / WORK).is_dir()
