"""The bias card where answers are shown one at a time: a pull of length is found as often as is said, the rest is counted right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from quality_seed import seed_binary
from scipy.special import expit

from data.database import Database
from data.pseudonyms import Pseudonyms
from data.settings import Settings
from labeling import snapshots
from labeling.bias_binary import NO_REPEATS, Called, binary_report
from labeling.bias_card import N_SLOPE, Gold, Repeats
from labeling.intervals import wilson
from labeling.label_report import Reports
from labeling.looks import scaled


def shown(rng: np.random.Generator, n: int, people: int = 1, share: float = 0.5) -> Called:
    """n answers of many lengths, called good by a coin."""
    return Called(
        annotator=np.arange(n) % people,
        item=np.arange(n),
        good=(rng.random(n) < share).astype(np.int64),
        length=rng.lognormal(6, 0.8, n).astype(np.int64),
        markdown=rng.poisson(2, n),
        dwell_ms=np.full(n, 4_000),
    )


def pulled(rng: np.random.Generator, called: Called, slope: float) -> Called:
    distance = scaled(called.length - int(np.median(called.length)))
    return replace(called, good=(rng.random(called.item.size) < expit(slope * distance)).astype(np.int64))


def test_a_pull_of_length_is_found_with_the_stated_power_and_is_not_seen_where_there_is_none() -> None:
    rng = np.random.default_rng(1)
    found, false = 0, 0
    for _ in range(100):
        blank = shown(rng, N_SLOPE)
        found += any(flag.startswith("Favours longer") for flag in binary_report(pulled(rng, blank, 0.25)).project.flags)
        false += any("longer" in flag for flag in binary_report(blank).project.flags)
    assert 0.68 <= found / 100 <= 0.92
    assert false <= 12


def test_shares_have_wilsons_interval_and_no_test_against_a_coin() -> None:
    called = replace(shown(np.random.default_rng(2), 300, 3), good=np.r_[np.ones(200), np.zeros(50), np.full(50, -1)].astype(int))
    report = binary_report(called)
    card = report.project
    low, high = wilson(200, 250)
    assert (card.n_labels, card.n_skips) == (250, 50)
    assert (card.good.value, card.good.low, card.good.high, card.good.n) == (0.8, float(low), float(high), 250)
    assert card.flags == (), "that most answers are good is no bias"
    assert card.good.p is None
    assert sum(each.n_labels for each in report.annotators) == 250


def test_repeats_gold_and_seconds() -> None:
    rng = np.random.default_rng(3)
    repeats = Repeats(np.array([0, 0, 0, 1]), np.array([1, 1, 0, 1]), np.array([1, 0, 1, 1]))
    known = Gold(np.repeat([0, 1, 2], 40), np.r_[np.ones(40), rng.random(40) < 0.4, np.ones(40)].astype(bool))
    first, second, third = binary_report(shown(rng, 90, 3), repeats, known).annotators
    assert (first.changed.value, first.changed.n) == (pytest.approx(2 / 3), 3)
    assert (second.changed.value, second.changed.n) == (0.0, 1)
    assert (third.changed.value, third.changed.note) == (None, NO_REPEATS)
    assert (first.gold.value, first.flags) == (1.0, ())
    assert second.flags[0].startswith("Right on ")
    assert (third.seconds.median, third.seconds.n) == (4.0, 30)


def test_too_few_and_nothing_are_said_in_words() -> None:
    empty = binary_report(shown(np.random.default_rng(4), 0))
    assert empty.annotators == ()
    assert empty.project.good.note == "nothing was called good or bad yet"
    few = binary_report(shown(np.random.default_rng(4), 5)).project
    assert few.length.value is None
    assert few.length.note == "needs 20 answers called good or bad"
    alike = replace(shown(np.random.default_rng(4), 50), length=np.full(50, 90))
    assert binary_report(alike).project.length.note == "all answers are of one length"


# --- from what is stored ---


def test_the_card_is_made_of_what_is_stored_and_goes_into_the_manifest(db: Database, settings: Settings) -> None:
    project = seed_binary(db)
    found = Reports(db).binary_cards(project)
    cards = {found.people[card.annotator]: card for card in found.report.annotators if card.annotator is not None}
    sql = """select l.annotator_id, avg((l.preference = 'good')::int) as share, count(*) as n
             from current_labels l join impressions i using (impression_id)
             where i.kind in ('normal', 'gold') and l.preference != 'skip' group by all"""
    for row in db.rows(sql):
        good = cards[row["annotator_id"]].good
        assert (good.value, good.n) == (pytest.approx(row["share"]), row["n"])
    assert cards["ben"].n_skips == 1
    assert {who: (card.changed.value, card.changed.n) for who, card in cards.items()} == dict.fromkeys(
        cards, (pytest.approx(1 / 3), 3)
    )
    assert cards["ada"].gold.value == 1.0
    assert any(flag.startswith("Favours longer answers") for flag in cards["lefty"].flags)
    assert not any("longer" in flag for flag in cards["ada"].flags)
    manifest = snapshots.freeze(db, settings, project.project_id, "binary").manifest
    assert manifest["bias_card"]["good"]["n"] == found.report.project.good.n
    standing_out = manifest["annotators_that_stand_out"]  # of three people another one may, by chance
    assert all(who.startswith("annotator-") for who in standing_out)
    assert Pseudonyms(db, project.project_id).of("lefty") in standing_out
