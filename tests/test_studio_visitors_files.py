"""What a visitor brings and takes along: uploads, texts and downloads, all with an end, and with a way to nobody else."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from conftest import ROOT
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient
from visiting import ANNA, BERT, call, request, viewer, visited

from data import import_folder, projects
from data.errors import LimitReached, StudioError
from data.import_folder import folder_of
from studio import visitors
from studio.context import VISITOR_COOKIE, Studio
from studio.data_page import DataPage
from studio.offers import Offers
from studio.offers import routes as offer_routes
from studio.security import SecurityMiddleware

pytestmark = pytest.mark.app


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with visited(tmp_path) as opened:
        yield opened


def test_a_download_goes_to_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    file.write_text("{}")
    offers = Offers()
    token = offers.add(file, file.name, "anna").removeprefix("download/")
    assert offers.get(token, "bert") is None
    assert offers.get("x", "anna") is None
    found = offers.get(token, "anna")
    assert found is not None
    assert found.path == file


def test_a_file_that_is_longer_than_its_preview_is_not_taken_in(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.importers.PREVIEW_ROWS", 3)
    monkeypatch.setattr(
        visitors, "MAX_PROMPTS", projects.counts(studio.db, studio.project(viewer(studio, ANNA)).project_id).prompts + 2
    )
    who = viewer(studio, ANNA)
    folder = folder_of(studio.settings.import_dir, who.owner)
    folder.mkdir(parents=True)
    rows = ["same"] * 4 + [f"another {n}" for n in range(9)]
    (folder / "long.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in rows))
    tab = DataPage(studio).imports
    before = projects.counts(studio.db, studio.project(who).project_id).prompts
    with pytest.raises(LimitReached, match="too many rows"):
        tab.load_file(request(ANNA), "long.jsonl", "prompts", "prompt", *[""] * 9)
    assert projects.counts(studio.db, studio.project(who).project_id).prompts == before


def test_old_downloads_go_with_their_files_only_where_they_are_a_visitors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.offers.KEPT", 2)
    offers = Offers()

    def make(owner: str, number: int) -> str:
        file = tmp_path / f"{owner}-{number}.zip"
        file.write_text("{}")
        return offers.add(file, file.name, owner).removeprefix("download/")

    backup, bert = make("", 0), make("bert", 0)
    for number in range(1, 4):
        make("", number)
        make("anna", number)
    assert offers.get(bert, "bert") is not None  # what others make does not take it away
    assert offers.get(backup, "") is None
    assert (tmp_path / "-0.zip").exists()  # a backup that the page said lies in the export folder
    assert not (tmp_path / "anna-1.zip").exists()
    for _ in range(4):
        again = make("anna", 3)
    assert offers.get(again, "anna") is not None, "the same file, made once more"
    offers.forget("anna")
    assert not list(tmp_path.glob("anna-*")), "whoever has gone leaves no file"
    assert (tmp_path / "bert-0.zip").exists()


def fetch(studio: Studio, address: str, token: str) -> Any:
    """A download as a browser with this cookie gets it."""
    app = Starlette(
        routes=[Route("/", lambda _: Response("")), *offer_routes(studio)],
        middleware=[Middleware(SecurityMiddleware, settings=studio.settings)],
    )
    return TestClient(app, base_url="http://127.0.0.1").get(f"/{address}", headers={"cookie": f"{VISITOR_COOKIE}={token}"})


EVERY_LABEL = ("majority", "drop", (), (), "", "", True, True)  # what the export form holds when nothing was chosen


def test_an_export_goes_to_its_visitor_alone_and_goes_with_the_project(studio: Studio) -> None:
    anna, tab = viewer(studio, ANNA), DataPage(studio).export
    made = str(tab.export(request(ANNA), "prompts", "jsonl", True, "", *EVERY_LABEL))
    address = re.search(r"download/[\w-]+", made)
    assert address is not None
    (file,) = list(studio.settings.export_dir.rglob("*.jsonl"))
    assert file.is_relative_to(import_folder.folder_of(studio.settings.export_dir, anna.owner))
    assert anna.owner not in str(file)
    assert fetch(studio, address[0], ANNA).text == file.read_text()
    for other in (BERT, "", "x"):
        refused = fetch(studio, address[0], other)
        assert refused.status_code in (403, 404)
        assert "prompt" not in refused.text
    later = datetime.now(UTC) + visitors.LIFETIME + timedelta(minutes=1)
    assert studio.visitors.remove_old(later) == 1
    assert not list(studio.settings.export_dir.rglob("*.jsonl"))
    assert fetch(studio, address[0], ANNA).status_code == 404
    assert studio.offers.get(address[0].removeprefix("download/"), anna.owner) is None


def parquet(path: Path, texts: Any, **how: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": texts}), path, **how)


def gzipped(path: Path, line: bytes, times: int) -> None:
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(times):
            file.write(line)


def bombs(folder: Path) -> list[Path]:
    """Files of less than a megabyte that are up to gigabytes of text."""
    import pyarrow as pa

    names = ("many.jsonl.gz", "blank.jsonl.gz", "long.csv.gz", "said.parquet", "packed.parquet", "tasks.jsonl")
    many, blank, long, said, packed, tasks = made = [folder / name for name in names]
    gzipped(many, json.dumps({"prompt": "x" * 10_000}).encode() + b"\n", 2_000)
    gzipped(blank, b" " * 10_000 + b"\n", 2_000)
    gzipped(long, b"prompt\n" + b"x" * 1_000_000, 20)
    parquet(said, pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 300_000])))
    parquet(packed, ["x" * 4_000_000] * 3, compression="zstd", use_dictionary=False)
    row = {"instruction": "x" * 400_000, "instances": [{"input": "", "output": str(n)} for n in range(10_000)]}
    tasks.write_text(json.dumps(row) + "\n" + json.dumps({"instruction": "a", "instances": [{"output": "b"}]}))
    return made


READ = r"""
import re, sys
from pathlib import Path
from data import importers
from data.errors import StudioError
from data.settings import Settings
for name in sys.argv[3:]:
    try:
        print(name, [p.reason for p in importers.read(Settings(Path(sys.argv[1])), Path(name), limit=int(sys.argv[2])).problems])
    except StudioError as error:
        print(name, error)
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused_early(studio: Studio, tmp_path: Path) -> None:
    """Each ends in a sentence before more of it is in memory than a visitor may bring."""
    tab = DataPage(studio).imports
    with gr.Blocks():
        tab.build()
    before = projects.counts(studio.db, studio.project(viewer(studio, ANNA)).project_id)
    made = bombs(tmp_path)
    for file in made:
        assert file.stat().st_size < studio.settings.max_upload_bytes, file
        (studio.settings.import_dir / file.name).write_bytes(file.read_bytes())
    with pytest.raises(LimitReached, match="unpacks to more than 16 MB"):
        call(tab.uploaded, str(made[0]), request(ANNA))
    args = [sys.executable, "-c", READ, str(studio.settings.home), str(visitors.MAX_UNPACKED), *(file.name for file in made)]
    *said, memory = subprocess.run(args, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    words = ["unpacks to more than 16 MB"] * 4 + ["is packed with ZSTD", "would repeat the instruction"]
    for line, expected in zip(said, words, strict=True):
        assert expected in line, line
    assert int(memory) < 300 * 1024, "of which pyarrow and the interpreter are half"
    assert projects.counts(studio.db, studio.project(viewer(studio, ANNA)).project_id) == before


def test_texts_of_a_visitor_have_an_end(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    who, tab = viewer(studio, ANNA), DataPage(studio).imports
    project = studio.project(who)
    monkeypatch.setattr(visitors, "MAX_CHARACTERS", studio.visitors._characters(project) + 1_000)
    tab.add_typed("x" * 900, request(ANNA))
    with pytest.raises(LimitReached, match="characters of prompts and answers"):
        tab.add_typed("y" * 900, request(ANNA))
    folder = folder_of(studio.settings.import_dir, who.owner)
    folder.mkdir(parents=True)
    (folder / "long.jsonl").write_text(json.dumps({"prompt": "short", "completion": "z" * 2_000}))
    with pytest.raises(LimitReached, match="characters of prompts and answers"):
        tab.load_file(request(ANNA), "long.jsonl", "demonstrations", "prompt", "", "completion", *[""] * 7)
    tab.add_typed("short", request(ANNA))


def test_a_visitors_older_uploads_go(studio: Studio, tmp_path: Path) -> None:
    tab = DataPage(studio).imports
    with gr.Blocks():
        tab.build()
    for number in range(visitors.MAX_UPLOADS_KEPT + 3):
        file = tmp_path / f"{number}.jsonl"
        file.write_text(json.dumps({"prompt": f"prompt {number}"}))
        call(tab.uploaded, str(file), request(ANNA))
    kept = folder_of(studio.settings.import_dir, viewer(studio, ANNA).owner)
    assert sorted(path.name for path in kept.iterdir()) == [f"{number}.jsonl" for number in range(3, 8)]


def test_a_visitor_is_never_told_a_path(studio: Studio) -> None:
    tab = DataPage(studio).imports
    for name in ("x.jsonl", "../x.jsonl", str(studio.settings.db_path), "/etc/passwd", "a\0b", "x" * 5_000):
        with pytest.raises(StudioError) as told:
            call(tab.chosen, name, request(ANNA))
        assert "/" not in str(told.value), name
