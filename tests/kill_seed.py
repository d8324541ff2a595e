"""Fill a workspace and leave a run going in it, as an app that was killed would: `python -m tests.kill_seed HOME SECONDS`.

Ends without waiting for the run. Prints the run's id.
"""

from __future__ import annotations

import sys
from pathlib import Path

from data import people
from data.database import Database
from data.settings import Settings
from studio.jobs import Jobs
from tests.labelling import seed_project


def main(home: str, seconds: str) -> None:
    settings = Settings(home=Path(home))
    db = Database(settings)
    project = seed_project(db, n_prompts=400)
    people.ensure(db, "local", "You", "local")
    people.set_open_project(db, "local", project.project_id)
    jobs = Jobs(settings, db)
    jobs.reconcile()
    args = {"args": {"steps": int(seconds) * 5, "seconds_a_step": 0.2}}
    run = jobs.start("generate", "tests.jobs_child", "a long run", project.project_id, args)
    while not db.value("select pid from runs where run_id = ?", [run.run_id]):
        pass
    print(run.run_id)
    jobs.close()
    db.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
