"""`headwater privacy report` on a real ledger, and the versions that it knows."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from agents.adapting.settings import AdaptSettings
from agents.joining.pseudonyms import open_pseudonyms
from agents.learning.model_change import made_live
from agents.learning.promise import check_promise
from agents.learning.releases import release_update
from agents.settings import JoinSettings, LearnSettings
from infra.cli import cli
from infra.model_history import ModelHistory, read_learned
from models.privacy.ledger import Opening, Round
from models.privacy.ledger_store import LedgerStore
from models.privacy.plan import make_plan
from models.privacy.randomness import NoiseKey
from schemas.errors import LedgerBroken, ModelUnavailable
from streams.settings import load

PLAN = make_plan("gaussian", epsilon=4.0, delta=1e-6, rounds_max=8, participations_max=2)
ROUNDS = 4


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LearnSettings:
    """A ledger of four rounds; user 0 was in two of them, and the third was not released."""
    monkeypatch.setenv("HEADWATER_LEARN_FOLDER", str(tmp_path))
    monkeypatch.setenv("HEADWATER_JOIN_PSEUDONYM_KEY", "k" * 32)
    names = open_pseudonyms(JoinSettings())
    users = [names.of(user=f"user {n}", conversation=None, prompt="") for n in range(ROUNDS)]
    opening = Opening(
        adapter="tone", plan=PLAN, key_commitment="0", artifact_sha256="0" * 64, cohort_size=2
    )
    store = LedgerStore(tmp_path / "ledger.db")
    store.open_adapter(opening, {"x": torch.zeros(1)})
    for number in range(ROUNDS):
        record = Round(
            number=number,
            users=(users[number], users[0]) if number == 1 else (users[number],),
            epsilon=PLAN.epsilon(number + 1),
            delta=PLAN.delta,
            max_grad_norm=1.0,
            offsets={"examples/0": number + 1},
            context=f"{number:064x}",
            artifact_sha256=f"{number:064x}",
            model_version=f"tone-{number + 1}",
            released=number != 2,
            time_ms=1_000 * number,
            evaluation={"gate_loss": 2.0 - number},
        )
        store.commit_round("tone", record, [f"e{number}"], {"x": torch.zeros(1)})
    store.close()
    return LearnSettings()


def report(*arguments: str) -> tuple[int, dict[str, object]]:
    done = CliRunner().invoke(cli, ["privacy", "report", "--json", *arguments])
    return done.exit_code, json.loads(done.stdout.splitlines()[0]) if done.stdout else {}


def test_the_report_computes_everything_anew(settings: LearnSettings) -> None:
    status, found = report()
    assert status == 0
    assert (found["rounds"], found["rounds_max"], found["users"]) == (4, 8, 4)
    assert found["epsilon_spent"] == pytest.approx(PLAN.epsilon(4)) == pytest.approx(4.0)
    assert found["epsilon_limit"] == pytest.approx(PLAN.epsilon())
    shares = found["user_epsilon"]
    assert isinstance(shares, dict)
    # Three of four took part once.
    assert shares["p50"] == pytest.approx(PLAN.user_epsilon([0], 4))
    assert shares["p100"] == pytest.approx(4.0)


def test_one_persons_part_by_name_and_by_pseudonym(settings: LearnSettings) -> None:
    status, found = report("--user", "user 0")
    assert (status, found["rounds"]) == (0, [0, 1])
    assert report("--user", str(found["user"])) == (0, found)
    assert report("--user", "nobody")[1]["rounds"] == []


def test_a_ledger_that_was_tampered_with_ends_with_status_1(settings: LearnSettings) -> None:
    database = sqlite3.connect(settings.folder / "ledger.db")
    database.execute("DROP TRIGGER ledger_keeps_entries")
    database.execute("UPDATE ledger SET body = CAST(replace(body, 'tone-3', 'tone-9') AS BLOB)")
    database.commit()
    database.close()
    done = CliRunner().invoke(cli, ["privacy", "report"])
    assert done.exit_code == 1
    with pytest.raises(LedgerBroken):
        read_learned(settings)


def test_without_a_ledger_the_message_says_where_one_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_LEARN_FOLDER", str(tmp_path / "none"))
    done = CliRunner().invoke(cli, ["privacy", "report"])
    assert done.exit_code == 1
    assert "none/ledger.db" in str(done.exception)
    assert not (tmp_path / "none").exists()
    # What is outside the guarantee is said all the same: nothing has to be learned for it.
    assert "variants, weights and quarantine are off" in done.stdout
    monkeypatch.setenv("HEADWATER_ADAPT_BESIDE_PRIVACY", "true")
    assert "OUTSIDE THE GUARANTEE" in CliRunner().invoke(cli, ["privacy", "report"]).stdout
    assert report("--user", "ann") == (1, {})


def test_versions_of_topic_and_ledger_are_one_history(settings: LearnSettings) -> None:
    learned = read_learned(settings)
    assert [update.parent_version for update, _ in learned.values()] == [
        "base",
        "tone-1",
        "tone-2",
        "tone-2",
    ]
    live = learned["tone-4"][0]
    assert (live.cohort_first, live.cohort_last) == (2, 3)
    # The topic is compacted: of all releases it has the newest.
    history = ModelHistory([live], learned)
    states = [(v.update.model_version, v.live, v.released) for v in history.versions]
    assert states == [
        ("tone-1", False, True),
        ("tone-2", False, True),
        ("tone-3", False, False),
        ("tone-4", True, True),
    ]
    back = made_live(history.named("tone-2", "tone"), "tone", "too terse", back=True)
    assert (back.origin, back.reason) == ("rollback", "too terse")
    assert back.artifact_sha256 == learned["tone-2"][0].artifact_sha256
    again = ModelHistory([live, back], learned)
    assert again.live("tone") == "tone-2"
    # What made it stays known, whatever was done with it since.
    assert again.named("tone-2", "tone").origin == "online"
    assert again.named("base", "tone").artifact_uri is None
    with pytest.raises(ModelUnavailable, match="tone-9"):
        again.named("tone-9", "tone")


def test_a_release_says_the_same_however_often_it_is_made(settings: LearnSettings) -> None:
    store = LedgerStore(settings.folder / "ledger.db")
    opening, rounds = store.opening("tone"), store.rounds("tone")
    releases = store.unpublished("tone")
    store.close()
    assert opening is not None
    first = [release_update(opening, rounds[: r.record.number + 1], r, "/x") for r in releases]
    assert first == [release_update(opening, rounds, r, "/x") for r in releases]
    assert [update.model_version for update in first] == ["tone-1", "tone-2", "tone-4"]


def test_the_report_says_what_learns_beside_it_outside_the_guarantee(
    settings: LearnSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = CliRunner().invoke(cli, ["privacy", "report"]).stdout
    assert "variants, weights and quarantine are off" in told
    assert "OUTSIDE" not in told

    opening = Opening(
        adapter="guarded",
        plan=PLAN,
        key_commitment="0",
        artifact_sha256="0" * 64,
        cohort_size=2,
        settings={"guarded": True},
    )
    store = LedgerStore(tmp_path / "ledger.db")
    store.open_adapter(opening, {"x": torch.zeros(1)})
    store.close()
    monkeypatch.setenv("HEADWATER_ADAPT_BESIDE_PRIVACY", "true")
    told = CliRunner().invoke(cli, ["privacy", "report"]).stdout
    assert told.count("OUTSIDE THE GUARANTEE") == 2
    assert "epsilon does not cover it" in told
    told = CliRunner().invoke(cli, ["privacy", "report", "--json"]).stdout
    beside = json.loads(told.splitlines()[-1])["outside_the_guarantee"]
    assert beside == {"variants": False, "guard_learning": load(AdaptSettings).guard_learning}


def test_an_adapter_keeps_for_life_whether_a_guard_chose_its_examples() -> None:
    key = NoiseKey(bytes(32))
    begun = Opening(
        adapter="tone",
        plan=PLAN,
        key_commitment=key.commitment,
        artifact_sha256="0" * 64,
        cohort_size=2,
        settings={"rank": 4},
    )
    check_promise(begun, {"rank": 4, "guarded": False}, key)
    with pytest.raises(LedgerBroken, match="guarded was False and is True"):
        check_promise(begun, {"rank": 4, "guarded": True}, key)
