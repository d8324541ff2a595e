"""The lists of disagreements and of gold, and the CSV made of each: everything that is there, however much, and nobody's name."""

from __future__ import annotations

import csv
import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from data import adjudications, gold, projects
from data.errors import StudioError
from data.pseudonyms import Pseudonyms
from data.records import Project
from data.settings import Settings
from labeling import label_list
from labeling.label_list import Wanted
from studio import csv_file
from studio.context import Studio, Viewer, open_studio
from studio.item_tab import Work
from studio.item_work import Disagreements, GoldItems
from tests.bench.label_quality import ANNOTATORS, OVERLAP, seed

LABELS = 15_000
ITEMS = LABELS // OVERLAP


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    home = tmp_path_factory.mktemp("lists") / "workspace"
    seed(home, LABELS)
    with open_studio(Settings(home=home)) as studio:
        project = projects.get(studio.db, str(studio.db.value("select project_id from projects limit 1")))
        pairs = studio.db.rows("select pair_id from pairs order by pair_id limit 30")
        for i, row in enumerate(pairs):
            adjudications.add(studio.db, project.project_id, row["pair_id"], "first", f"=reason {i}", "annotator1")
        yield studio


@pytest.fixture
def project(studio: Studio) -> Project:
    return projects.get(studio.db, str(studio.db.value("select project_id from projects limit 1")))


def written(studio: Studio, project: Project, names: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> list[list[str]]:
    url = csv_file.offer(studio, Viewer("local", "", False), project, "list", names, rows)
    offer = studio.offers.get(url.removeprefix("download/"), "")
    assert offer is not None
    with Path(offer.path).open(encoding="utf-8-sig", newline="") as file:
        head, *found = csv.reader(file)
    assert head == list(names)
    return found


@pytest.mark.parametrize(
    ("work", "view"),
    [(Disagreements, "open"), (Disagreements, "decided"), (GoldItems, "suggested"), (GoldItems, "gold"), (GoldItems, "any")],
)
def test_pages_and_file_hold_the_whole_list_in_its_order(studio: Studio, project: Project, work: type[Work], view: str) -> None:
    lists = work(studio)  # type: ignore[call-arg]
    every = list(lists.find(project, view, ""))
    assert len({row.item_id for row in every}) == len(every) == {row.among for row in every}.pop()
    middle = len(every) // 2
    assert list(lists.find(project, view, "", 20, middle)) == every[middle : middle + 20]
    assert list(lists.find(project, view, "", 20, len(every))) == []
    raw = ((row.item_id, row.prompt_id, *row.raw) for row in lists.find(project, view, ""))
    rows = written(studio, project, ("item_id", "prompt_id", *lists.raw[view]), raw)
    assert [row[0] for row in rows] == [row.item_id for row in every]
    assert not any("annotator1," in cell or cell.startswith("=") for row in rows for cell in row)


def test_a_file_that_cannot_be_finished_is_not_left(studio: Studio, project: Project) -> None:
    """A full disk has no room for half a list."""

    def rows() -> Iterator[tuple[object, ...]]:
        yield ("one",)
        raise OSError(errno.ENOSPC, "No space left on device")

    before = set(studio.settings.export_dir.iterdir())
    with pytest.raises(StudioError):
        written(studio, project, ("item",), rows())
    assert set(studio.settings.export_dir.iterdir()) == before


def test_whoever_begins_while_the_list_is_read_does_not_end_it(
    studio: Studio, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pseudonyms, "everybody", lambda _: {})
    rows = list(Disagreements(studio).find(project, "open", "", 5))
    assert ["a newcomer" in str(row.raw) for row in rows] == [True] * 5


def test_no_list_stops_early(studio: Studio, project: Project) -> None:
    """Counted in the tables, by other statements than those of the lists."""
    sql = """select item, count(distinct said) as answers, count(*) as people from (
                 select i.pair_id as item, l.annotator_id, last(case l.preference
                        when 'a' then i.left_completion_id when 'b' then i.right_completion_id else l.preference end
                        order by l.seq) as said
                 from current_labels l join impressions i using (impression_id)
                 where i.kind = 'normal' and l.preference != 'skip' group by all) group by item"""
    said = {row["item"]: row for row in studio.db.rows(sql)}
    decided = {each.item_id for each in adjudications.current(studio.db, project.project_id)}
    known = {each.item_id for each in gold.current(studio.db, project.project_id)}
    differ = {item for item, row in said.items() if row["answers"] > 1} - decided
    agree = {item for item, row in said.items() if row["answers"] == 1 and row["people"] >= gold.MIN_UNANIMOUS} - known
    assert len(differ) > 2_000
    assert len(agree) > 200
    assert {row.item_id for row in Disagreements(studio).find(project, "open", "")} == differ
    assert {row.item_id for row in GoldItems(studio).find(project, "suggested", "")} == agree
    assert len(list(GoldItems(studio).find(project, "any", ""))) == ITEMS


def test_search_goes_through_the_whole_list(studio: Studio, project: Project) -> None:
    lists = GoldItems(studio)
    for view in ("suggested", "gold", "any"):
        assert list(lists.find(project, view, "QUESTION", 20)) == list(lists.find(project, view, "", 20))
        assert list(lists.find(project, view, "no such words")) == []


def test_the_file_of_labels_holds_what_the_page_shows(studio: Studio, project: Project) -> None:
    names = Pseudonyms(studio.db, project.project_id).everybody()
    assert len(names) == ANNOTATORS
    rows = written(studio, project, label_list.LINE, label_list.lines(studio.db, project, Wanted("all"), names))
    assert len(rows) == LABELS
    shown = label_list.find(studio.db, project, Wanted("all"), 50)
    for row, e in zip(rows, shown, strict=False):
        at = f"{e.at:%Y-%m-%d %H:%M:%S.%f}+00:00"
        seconds = str(e.dwell_ms / 1000)
        assert row == [e.prompt_id, names[e.annotator_id], e.preference, " ".join(e.flags), seconds, at, ""]


def test_two_flags_of_a_label_are_two_words(studio: Studio, project: Project) -> None:
    row = studio.db.row("select * from label_events order by seq limit 1")
    assert row is not None
    event = row | {"event_id": "9d5ed678-fe57-4c3c-a1b3-2b1a0c3c7a11", "event": "revised", "seq": 10 * LABELS}
    studio.db.insert("label_events", [event | {"flags": '["too_fast", "unread"]'}])
    names = Pseudonyms(studio.db, project.project_id).everybody()
    [flags] = {line[3] for line in label_list.lines(studio.db, project, Wanted("unread"), names)}
    assert flags == "too_fast unread"
