"""Fill a workspace and leave a run going in it, as an app that was killed would: `python -m tests.kill_seed HOME SECONDS PEOPLE`.

Ends without waiting for the run. Prints a JSON object: the run's id, and a cookie for each annotator who has an account; with 0
annotators the workspace is for one person who needs none.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from data import accounts, members, people, runs
from data.database import Database
from data.records import ProjectSettings
from data.settings import Settings
from studio.jobs import Jobs
from studio.sessions import Sessions
from tests.labelling import seed_project


def main(home: str, seconds: str, annotators: str) -> None:
    several = int(annotators)
    settings = Settings(home=Path(home), accounts=several > 0)
    db = Database(settings)
    overlap = ProjectSettings(overlap=max(1, several))
    project = seed_project(db, n_prompts=3_000 if several else 400, settings=overlap)  # more than they can label
    people.ensure(db, "local", "You", "local")
    people.set_open_project(db, "local", project.project_id)
    cookies = []
    for i in range(several):
        account = db.write(lambda cursor, i=i: accounts.add(cursor, f"annotator{i}", "", "annotator"))
        members.add(db, project.project_id, account.annotator_id)
        people.set_open_project(db, account.annotator_id, project.project_id)
        cookies.append(Sessions(settings, db).cookie(account.annotator_id, https=False).split(";")[0])
    jobs = Jobs(settings, db)
    jobs.reconcile()
    args = {"args": {"steps": int(seconds) * 5, "seconds_a_step": 0.2}}
    run = jobs.start("generate", "tests.jobs_child", "a long run", project.project_id, args)
    while not (started := runs.get(db, run.run_id)).pid:
        if started.status not in ("queued", "running"):
            sys.exit(f"the run was not started: {started.error}")
        time.sleep(0.01)
    print(json.dumps({"run_id": run.run_id, "cookies": cookies}))
    jobs.close()
    db.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
