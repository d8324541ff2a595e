"""After a restart people keep what was on their screens: renewals of a lease are in memory alone, and a kill takes them along."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from labelling import seed_project

from data.database import Database
from data.records import ProjectSettings
from data.settings import Settings
from labeling import preferences
from labeling.assignment import HEARTBEAT_SECONDS, LEASE_SECONDS, Assignment
from labeling.preferences import Vote

NOW = 1_800_000_000.0
SERVER = """
import sys, time
from pathlib import Path
from data.database import Database
from data.settings import Settings
from labeling.assignment import HEARTBEAT_SECONDS, Assignment

home, project_id, now = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
clock = [now - 1000]
ours = Assignment(Database(Settings(home=home)), clock=lambda: clock[0])
mine = [s.impression.impression_id for s in ours.serve("ann", project_id, 4)]
while clock[0] < now:
    clock[0] += HEARTBEAT_SECONDS
    assert ours.heartbeat("ann", project_id, mine).kept == mine
print("beating", flush=True)
time.sleep(600)
"""


class Server:
    """One that can be restarted over the same workspace, and whose clock is set."""

    def __init__(self, home: Path) -> None:
        self.home, self.now = home, NOW
        self.db = Database(Settings(home=home))
        self._open()

    def _open(self) -> None:
        self.ours = Assignment(self.db, clock=lambda: self.now, rng=random.Random(1))

    def restart(self) -> None:
        self.db.close()
        self.db = Database(Settings(home=self.home))
        self._open()

    def serve(self, who: str, project_id: str, n: int = 100) -> dict[str, str]:
        """item -> impression"""
        served = self.ours.serve(who, project_id, n)
        return {s.impression.pair_id: s.impression.impression_id for s in served}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "workspace")
    yield made
    made.db.close()


def test_a_kill_takes_no_renewed_item_from_its_annotator(server: Server) -> None:
    project_id = seed_project(server.db, 10).project_id
    server.db.close()
    command = [sys.executable, "-c", SERVER, str(server.home), project_id, str(NOW)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "beating\n"
        child.send_signal(signal.SIGKILL)
    server.db = Database(Settings(home=server.home))
    server._open()
    stored = {row["pair_id"] for row in server.db.rows("select pair_id from impressions where annotator_id = 'ann'")}
    assert len(stored) == 4
    server.now += 5
    theirs = set(server.serve("bea", project_id))
    assert len(theirs) == 6
    assert not theirs & stored, "what ann has on her screen is served to nobody else"
    assert set(server.serve("ann", project_id, 4)) == stored


def test_nobody_waits_longer_than_one_lease_for_what_was_left_behind(server: Server) -> None:
    project_id = seed_project(server.db, 6).project_id
    left = server.serve("ann", project_id, 6)
    server.now += 100 * LEASE_SECONDS
    server.restart()
    assert server.serve("bea", project_id) == {}
    server.now += LEASE_SECONDS
    assert set(server.serve("bea", project_id)) == set(left)


def test_the_lease_counts_from_the_start_and_not_from_the_first_request(server: Server) -> None:
    project_id = seed_project(server.db, 6).project_id
    left = server.serve("ann", project_id, 6)
    server.restart()
    server.now += LEASE_SECONDS
    assert set(server.serve("bea", project_id)) == set(left)


def test_an_item_that_went_to_somebody_else_stays_theirs(server: Server) -> None:
    project_id = seed_project(server.db, 1).project_id
    [item] = server.serve("ann", project_id)
    server.now += LEASE_SECONDS
    assert list(server.serve("bea", project_id)) == [item]
    server.now += LEASE_SECONDS / 2
    server.restart()
    assert server.serve("ann", project_id) == {}
    assert list(server.serve("bea", project_id)) == [item]


@pytest.mark.parametrize("settings", [ProjectSettings(overlap=2), ProjectSettings(overlap=2, adaptive=True, max_overlap=4)])
def test_restarts_at_any_time_never_exceed_the_overlap(server: Server, settings: ProjectSettings) -> None:
    """People who come, go, let leases run out and label late, and a server that is restarted over and over."""
    project_id = seed_project(server.db, 30, settings=settings).project_id
    rng, people = random.Random(3), ("ann", "bea", "cid", "dan", "eve")
    screens: dict[str, dict[str, str]] = {who: {} for who in people}

    def label(who: str) -> None:
        if screens[who]:
            item = rng.choice(list(screens[who]))
            vote = Vote(str(uuid.uuid4()), screens[who].pop(item), "cast", rng.choice(["a", "b", "tie"]))
            assert preferences.record(server.db, who, [vote], assignment=server.ours)[0].accepted

    def ask(who: str) -> None:
        screens[who] = server.serve(who, project_id, rng.randint(1, 4))

    def beat(who: str) -> None:
        lost = set(server.ours.heartbeat(who, project_id, list(screens[who].values())).lost)
        screens[who] = {item: i for item, i in screens[who].items() if i not in lost}

    held = 0
    doings: list[Callable[[str], None]] = [label, ask, ask, beat, beat]
    for _ in range(150):
        rng.choice(doings)(rng.choice(people))
        server.now += rng.choice([1, HEARTBEAT_SECONDS, LEASE_SECONDS])
        if rng.random() < 0.1:
            server.restart()
            server.ours.progress("ann", project_id)  # reads the memory
            pool = server.ours._projects[project_id].pool
            leased = {item: sum(pool.has_lease(item, who) for who in people) for item in pool.items}
            held += sum(leased.values())
            assert all(n == 0 or len(pool.said(item)) + n <= pool.wanted(item) for item, n in leased.items())
    assert held > 20
    sql = """select i.pair_id, count(*) as n from current_labels l join impressions i using (impression_id)
             where not contains(l.flags, '"extra"') group by i.pair_id"""
    most = settings.max_overlap if settings.adaptive else settings.overlap
    assert all(row["n"] <= most for row in server.db.rows(sql))
