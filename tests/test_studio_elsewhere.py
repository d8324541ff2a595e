"""A run carried to another machine and brought back: the file is all that is needed there, and what comes back is not believed."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from run_studio import CHILD, VIEWER, ended, freeze, labelled_project, studio_with_runs, train, wait
from safetensors.numpy import save_file

from data import models, people, projects, runs
from data.database import Database
from data.errors import BadInput, NotFound, WorkspaceError
from data.model_folder import MAX_BYTES
from data.records import Model, Run, now
from data.rundir import RunDir
from data.settings import Settings
from studio import elsewhere, run_queue
from studio.bring_back import bring_back
from studio.context import Studio
from studio.model_card import card
from studio.run_charts import charts
from studio.run_report import after, report
from studio.run_samples import samples
from studio.run_verdict import shown
from studio.run_watch import judged
from training import carry
from training.config import RlooConfig
from training.export import weights_sha256
from training.launch import Launch
from training.launch_files import Place

pytestmark = pytest.mark.app

LAUNCH = Launch()
Edit = Callable[[Path], object]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    settings = Settings(home=tmp_path_factory.mktemp("elsewhere") / "workspace")
    db = Database(settings)
    with studio_with_runs(settings, db) as made:
        yield made
    db.close()


@pytest.fixture(scope="module")
def run(studio: Studio) -> Run:
    project = labelled_project(studio)
    found = train(studio, freeze(studio, project), {"max_steps": 2, "precision": "fp32", "tuning": "lora"})
    return wait(studio.db, found.run_id, ended)


def carried(studio: Studio, run: Run, tmp_path: Path, name: str = "dpo-run") -> Path:
    """The packed file, unpacked: the folder it makes."""
    prepared = elsewhere.of_run(studio, VIEWER, run)
    packed = elsewhere.pack_up(studio, VIEWER, prepared, Place(name, "training.dpo"), LAUNCH)
    assert packed.parent == studio.settings.export_dir
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "there", filter="data")
    return tmp_path / "there" / name


def trained(folder: Path, status: str = "finished") -> Path:
    """The run folder as it stands when it has been trained there, with weights of no meaning."""
    run = RunDir(next((folder / "runs").iterdir()))
    run.event("status", status="running")
    run.event("metrics", step=1, loss=0.69)
    run.event("result", adapter="adapter", steps=2, seconds=1.0, rows=9, metrics={"loss": 0.5})
    run.event("status", status=status)
    (run.path / "adapter").mkdir()
    save_file({"x.lora_A.weight": numpy.ones((2, 2), "f4")}, run.path / "adapter" / "adapter_model.safetensors")
    (run.path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return run.path


def packed(run_folder: Path, suffix: str = ".tar.gz") -> Path:
    """As the README.txt says, or with a program that makes .zip."""
    to = run_folder.parent.parent / f"back{suffix}"
    if suffix == ".zip":
        return Path(shutil.make_archive(str(to.with_suffix("")), "zip", run_folder.parent, run_folder.name))
    with tarfile.open(to, "w:gz") as archive:
        archive.add(run_folder, run_folder.name)
    return to


# --- what is carried ------------------------------------------------------------------------------------------------------------


def test_what_is_carried_holds_the_run_its_rows_and_the_code(studio: Studio, run: Run, tmp_path: Path) -> None:
    there = carried(studio, run, tmp_path)
    config = json.loads((there / "runs" / "dpo-run" / "config.json").read_text())
    assert config["args"]["train"] == run.config["args"]["train"]
    assert config["args"]["model"]["base"] == "data/demo/model"
    assert (config["module"], config["kind"], config["snapshot_id"]) == ("training.dpo", "dpo", run.snapshot_id)
    assert RunDir(there / "runs" / "dpo-run").check_data("data.parquet", config["data"]["sha256"])
    for name in ("training/dpo.py", "training/launch_presets/ddp.yaml", "data/rundir.py", "data/demo/model/model.safetensors"):
        assert (there / name).is_file(), name
    readme = (there / "README.txt").read_text()
    assert "accelerate launch --config_file training/launch_presets/ddp.yaml --num_processes 2" in readme
    assert not list(there.rglob("*.pyc"))
    home = str(studio.settings.home)
    assert not [file for file in there.rglob("*") if file.suffix in (".json", ".txt") and home in file.read_text()], (
        "no path of here"
    )


def test_the_code_that_is_carried_is_whole(studio: Studio, run: Run, tmp_path: Path) -> None:
    """Every module that a run loads can be found there, with nothing of this checkout in reach."""
    there = carried(studio, run, tmp_path)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import training.loop, training.launch, training.methods, data.resume, data.rundir; print(training.loop.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=there, env=env, capture_output=True, text=True)
    assert done.stdout.startswith(str(there)), done.stderr


@pytest.mark.slow  # a training run with its imports
@pytest.mark.model
def test_a_run_is_trained_there_and_comes_back(studio: Studio, run: Run, tmp_path: Path) -> None:
    there = carried(studio, run, tmp_path)
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "training.dpo", "runs/dpo-run"], cwd=there, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    back = bring_back(studio, VIEWER, packed(there / "runs" / "dpo-run"))
    assert (back.status, back.result["steps"]) == ("finished", 2)
    spec = models.get(studio.db, back.result["model_id"]).spec
    assert (Path(spec["adapter"]) / "adapter_model.safetensors").is_file()


def reward_model(studio: Studio, run: Run, name: str, whole: bool) -> Model:
    """One of the project, of weights without meaning: a whole model, or an adapter over the demo model."""
    folder = studio.settings.runs_dir / name / ("model" if whole else "adapter")
    folder.mkdir(parents=True)
    save_file({"score.weight": numpy.ones((1, 2), "f4")}, folder / ("model.safetensors" if whole else "adapter_model.safetensors"))
    (folder / ("config.json" if whole else "adapter_config.json")).write_text(f'{{"of": "{name}"}}')
    (folder / "training_args.bin").write_bytes(b"pickle")
    spec = {"kind": "local", "base": str(folder) if whole else run.config["args"]["model"]["base"]}
    spec |= {} if whole else {"adapter": str(folder)}
    return models.add(studio.db, Model(name, run.project_id, "", name, "reward", spec, "", "", now()))


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "adapter"])
def test_the_reward_model_that_grades_is_carried_along(studio: Studio, run: Run, tmp_path: Path, whole: bool) -> None:
    name = "scorer" if whole else "scoring-adapter"
    model = reward_model(studio, run, name, whole)
    parent = models.get(studio.db, run.config["args"]["model_id"])
    config = RlooConfig(reward=model.model_id, tuning="lora")
    prepared = elsewhere.of_run(studio, VIEWER, run)._replace(method="rloo", config=config, parent=parent)
    file = elsewhere.pack_up(studio, VIEWER, prepared, Place(f"by-{name}", "training.rloo"), Launch(devices=1))
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path, filter="data")
    there = tmp_path / f"by-{name}"
    args = json.loads((there / "runs" / there.name / "config.json").read_text())["args"]
    grader, mine = args["reward_model"], models.get(studio.db, model.model_id).spec
    folder = there / (grader["base"] if whole else grader["adapter"])
    assert (grader["base"], grader["adapter"]) == (
        ("models/scorer", "") if whole else ("data/demo/model", f"runs/{there.name}/reward")
    )
    assert args["model"]["base"] == "data/demo/model"
    assert {file.suffix for file in folder.iterdir()} == {".safetensors", ".json"}, "no pickle"
    here = Path(mine["base"] if whole else mine["adapter"])
    assert all(file.read_bytes() == (here / file.name).read_bytes() for file in folder.iterdir())
    home = str(studio.settings.home)
    assert not [file for file in there.rglob("*") if file.suffix in (".json", ".txt") and home in file.read_text()]
    back = bring_back(studio, VIEWER, packed(trained(there)))
    assert back.config["args"]["reward_model"]["base" if whole else "adapter"] == str(here), "as it is known here"
    assert back.config["args"]["reward_name"] == name


def test_bases_of_one_name_are_kept_apart_and_too_much_is_refused(
    studio: Studio, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: dict[str, Path] = {}
    for parent in ("a", "b"):
        (tmp_path / parent / "llama").mkdir(parents=True)
        (tmp_path / parent / "llama" / "model.safetensors").write_bytes(b"x" * 600)
    found = [carry._along({"base": str(tmp_path / name / "llama")}, "", folders)["base"] for name in ("a", "b", "a")]
    assert found == ["models/llama", "models/llama-2", "models/llama"]
    monkeypatch.setattr(carry, "MOST", 1000)
    with pytest.raises(BadInput, match="too much to carry"):
        carry._check_size(folders.values())
    carry._check_size(list(folders.values())[:1])


def test_what_does_not_fit_on_the_disk_leaves_no_piece(studio: Studio, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    before = set(studio.settings.export_dir.iterdir())
    monkeypatch.setattr(carry, "_code", full)
    with pytest.raises(OSError, match="No space left"):
        elsewhere.pack_up(studio, VIEWER, elsewhere.of_run(studio, VIEWER, run), Place("full", "training.dpo"), LAUNCH)
    assert set(studio.settings.export_dir.iterdir()) == before


@pytest.mark.parametrize("kept", ["pytorch_model.bin", ""], ids=["pickled", "gone"])
def test_a_model_without_safetensors_is_not_carried_for_nothing(studio: Studio, run: Run, tmp_path: Path, kept: str) -> None:
    base = tmp_path / "pickled-base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    if kept:
        (base / kept).write_bytes(b"pickle")
    prepared = elsewhere.of_run(studio, VIEWER, run)
    parent = replace(prepared.parent, spec={**prepared.parent.spec, "base": str(base)})
    before = set(studio.settings.export_dir.iterdir())
    with pytest.raises(BadInput, match="pickled-base holds no weights as safetensors"):
        elsewhere.pack_up(studio, VIEWER, prepared._replace(parent=parent), Place("bin", "training.dpo"), LAUNCH)
    assert set(studio.settings.export_dir.iterdir()) == before


def test_a_parent_adapter_is_carried_along(studio: Studio, run: Run, tmp_path: Path) -> None:
    first = bring_back(studio, VIEWER, packed(trained(carried(studio, run, tmp_path))))
    parent = models.get(studio.db, first.result["model_id"])
    prepared = elsewhere.of_run(studio, VIEWER, run)._replace(parent=parent)
    file = elsewhere.pack_up(studio, VIEWER, prepared, Place("next", "training.dpo"), LAUNCH)
    with tarfile.open(file) as archive:
        config = json.load(archive.extractfile("next/runs/next/config.json"))  # type: ignore[arg-type]
        assert config["args"]["model"]["adapter"] == "runs/next/parent"
        assert "next/runs/next/parent/adapter_model.safetensors" in archive.getnames()


# --- what comes back ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_what_was_trained_elsewhere_becomes_a_model_with_its_lineage(studio: Studio, run: Run, tmp_path: Path, suffix: str) -> None:
    file = packed(trained(carried(studio, run, tmp_path)), suffix)
    back = bring_back(studio, VIEWER, file)
    assert (back.status, back.kind, back.snapshot_id, back.name) == ("finished", "dpo", run.snapshot_id, run.name)
    assert back.result["metrics"] == {"loss": 0.5}
    model = models.get(studio.db, back.result["model_id"])
    assert (model.run_id, model.parent_model_id, model.kind) == (back.run_id, run.config["args"]["model_id"], "adapter")
    assert model.spec["adapter"] == str(studio.settings.runs_dir / back.run_id / "adapter")
    assert elsewhere.of_run(studio, VIEWER, back).config == elsewhere.of_run(studio, VIEWER, run).config, "it can be run again"
    assert [e["loss"] for e in studio.metrics.of(back.run_id)] == [0.69]
    before = len(runs.of_project(studio.db, back.project_id))
    assert bring_back(studio, VIEWER, file).run_id == back.run_id
    assert len(runs.of_project(studio.db, back.project_id)) == before, "taking it twice adds nothing"


def edited(name: str, **changes: Any) -> Edit:
    def edit(folder: Path) -> None:
        config = json.loads((folder / name).read_text())
        for path, value in changes.items():
            *parts, last = path.split("__")
            inner = config
            for part in parts:
                inner = inner[part]
            inner[last] = value
        (folder / name).write_text(json.dumps(config))

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (edited("config.json", project_id="another"), "belongs to another project"),
        (edited("config.json", data__sha256="0" * 64), "not those that were frozen here"),
        (edited("config.json", snapshot_id="none"), "snapshot"),
        (edited("config.json", args__model_id="none"), "not in the list any more"),
        (edited("config.json", args__train={"evil": 1}), "no setting 'evil'"),
        (edited("config.json", kind="../../x"), "no training method"),
        (lambda folder: (folder / "config.json").write_text("{"), "holds no run folder"),
        (lambda folder: (folder / "events.jsonl").write_text(""), "has not ended"),
        (lambda folder: (folder / "events.jsonl").unlink(), "holds no run folder"),
        (lambda folder: (folder / "adapter" / "adapter_model.safetensors").unlink(), "no weights as safetensors"),
        (lambda folder: (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle"), "damaged"),
        (lambda folder: (folder / "adapter" / "adapter_config.json").unlink(), "damaged"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(studio: Studio, run: Run, tmp_path: Path, edit: Edit, words: str) -> None:
    folder = trained(carried(studio, run, tmp_path))
    edit(folder)
    before, known = set(studio.settings.runs_dir.iterdir()), len(runs.of_project(studio.db, run.project_id))
    with pytest.raises((BadInput, NotFound), match=words):
        bring_back(studio, VIEWER, packed(folder))
    assert set(studio.settings.runs_dir.iterdir()) == before
    assert len(runs.of_project(studio.db, run.project_id)) == known


def test_a_hostile_archive_writes_nothing_outside_and_runs_nothing(studio: Studio, run: Run, tmp_path: Path) -> None:
    """Paths that climb, links, pickles and unknown names stay behind; the endpoint or base that its config names is not taken."""
    folder = trained(carried(studio, run, tmp_path))
    edited("config.json", args__model={"kind": "endpoint", "url": "http://evil", "base": "/etc"}, module="os")(folder)
    (folder / "adapter" / "adapter_model.bin").write_bytes(b"pickle")
    (folder / "adapter" / "run.py").write_text("raise SystemExit")
    file = packed(folder)
    plain = tmp_path / "hostile.tar"
    with tarfile.open(file) as good, tarfile.open(plain, "w") as bad:
        for member in good:
            bad.addfile(member, good.extractfile(member) if member.isfile() else None)
        for name in (f"{folder.name}/../../../owned", "/tmp/owned-by-archive", f"{folder.name}/adapter/../../owned.json"):
            info = tarfile.TarInfo(name)
            info.size = 1
            bad.addfile(info, io.BytesIO(b"x"))
        link = tarfile.TarInfo(f"{folder.name}/adapter/README.md")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        bad.addfile(link)
    back = bring_back(studio, VIEWER, plain)
    here = studio.settings.runs_dir / back.run_id
    found = sorted(f.relative_to(here).as_posix() for f in here.rglob("*") if f.is_file())
    wanted = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "config.json", "data.parquet", "events.jsonl"]
    assert found == wanted
    assert (back.module, back.config["args"]["model"]["base"]) == ("training.dpo", run.config["args"]["model"]["base"])
    assert not Path("/tmp/owned-by-archive").exists()
    assert not list(studio.settings.home.rglob("owned*"))


def test_a_link_of_a_known_name_brings_no_bytes_that_were_not_counted(
    studio: Studio, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room on the disk is looked at by what the files say; a link of the same name must not stand for a longer one."""
    folder = trained(carried(studio, run, tmp_path))
    plain = tmp_path / "linked.tar"
    with tarfile.open(packed(folder)) as good, tarfile.open(plain, "w") as bad:
        for member in good:
            bad.addfile(member, good.extractfile(member) if member.isfile() else None)
        long = tarfile.TarInfo(f"{folder.name}/notes")
        long.size = 100_000
        bad.addfile(long, io.BytesIO(b"x" * long.size))
        link = tarfile.TarInfo(f"{folder.name}/adapter/adapter_model.safetensors")
        link.type, link.linkname = tarfile.LNKTYPE, long.name
        bad.addfile(link)
    back = bring_back(studio, VIEWER, plain)
    here = studio.settings.runs_dir / back.run_id / "adapter" / "adapter_model.safetensors"
    assert here.read_bytes() == (folder / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "0001-01-01T00:00:00+00:00"])
def test_a_time_that_is_none_is_that_of_today(studio: Studio, run: Run, tmp_path: Path, at: str) -> None:
    folder = trained(carried(studio, run, tmp_path))
    events = (folder / "events.jsonl").read_text().splitlines()
    said = [json.dumps(json.loads(line) | {"at": at}) + "\n" for line in events]
    (folder / "events.jsonl").write_text("".join(said))
    back = bring_back(studio, VIEWER, packed(folder))
    assert back.started_at is not None
    assert 2000 < back.started_at.year <= now().year


def test_a_description_of_weights_that_is_far_too_long_is_refused(studio: Studio, run: Run, tmp_path: Path) -> None:
    folder = trained(carried(studio, run, tmp_path))
    (folder / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}' + " " * MAX_BYTES)
    with pytest.raises(BadInput, match="damaged"):
        bring_back(studio, VIEWER, packed(folder))


def test_what_it_says_of_itself_is_taken_only_where_it_is_what_a_run_says(studio: Studio, run: Run, tmp_path: Path) -> None:
    """Every page that shows a run is drawn from figures; a text in their place, or a name with markup, must not reach them."""
    markup = "<img src=x onerror=alert(1)> [x](http://evil)"
    folder = trained(carried(studio, run, tmp_path))
    lies = {"steps": "many", "rows": markup, "seconds": 1e999, "held_out_rows": [], "metrics": {"loss": markup, markup: 1, "kl": 2}}
    there = RunDir(folder)
    with (folder / "events.jsonl").open("a") as f:
        for event in (
            {"type": "metrics", "step": "x", "loss": 1},
            {"type": "metrics", "step": 2, "loss": markup, markup: 3},
            {"type": "sample", "step": 1, "prompt": {}, "text": 7},
            {"type": "log", "text": ["x"]},
            {"type": "result", "adapter": "../../..", "adapter_sha256": "ab" * 32, "model_id": "demo", "n_prompts": 3, **lies},
        ):
            f.write(json.dumps(event) + "\n")
        f.write("[" * 100_000 + "\n")
    there.event("status", status="finished")
    edited("config.json", versions={markup: "1", "torch": markup, "peft": "1.0"}, git={"commit": markup})(folder)
    back = bring_back(studio, VIEWER, packed(folder))
    assert back.result["adapter"] == "adapter"
    assert back.result["adapter_sha256"] == weights_sha256(studio.settings.runs_dir / back.run_id / "adapter")
    assert back.result["metrics"] == {"kl": 2}
    assert not {"steps", "rows", "seconds", "held_out_rows", "n_prompts"} & set(back.result)
    assert models.get(studio.db, back.result["model_id"]).run_id == back.run_id
    assert [event.get("loss") for event in studio.metrics.of(back.run_id)] == [0.69, None]
    assert (back.config["versions"], back.config["git"]["commit"]) == ({"peft": "1.0"}, "")
    drawn = [report(back), charts(studio.metrics.of(back.run_id)), samples(studio.metrics.samples(back.run_id)), after(back)]
    drawn.append(shown(judged(studio, back), True))
    assert not [html for html in drawn if "<img" in html]
    assert "evil" not in card(studio, back, "mit")


def test_the_adapter_names_its_base_as_it_is_here(studio: Studio, run: Run, tmp_path: Path) -> None:
    folder = trained(carried(studio, run, tmp_path))
    edited("adapter/adapter_config.json", base_model_name_or_path="/home/somebody/secret")(folder)
    back = bring_back(studio, VIEWER, packed(folder))
    described = json.loads((studio.settings.runs_dir / back.run_id / "adapter" / "adapter_config.json").read_text())
    assert described == {"peft_type": "LORA", "base_model_name_or_path": "data/demo/model"}


def test_two_tabs_that_bring_the_same_archive_get_one_run(studio: Studio, run: Run, tmp_path: Path) -> None:
    file = packed(trained(carried(studio, run, tmp_path)))
    with ThreadPoolExecutor(4) as tabs:
        brought = {future.result().run_id for future in [tabs.submit(bring_back, studio, VIEWER, file) for _ in range(4)]}
    assert len(brought) == 1
    assert (studio.settings.runs_dir / brought.pop() / "adapter" / "adapter_model.safetensors").is_file()


def test_an_attempt_that_was_cut_off_is_made_good(
    studio: Studio, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is killed while it unpacks leaves a folder without a row; one that is killed later, a run without its model."""
    file = packed(trained(carried(studio, run, tmp_path)))
    with monkeypatch.context() as patch:
        patch.setattr("studio.bring_back.shutil.rmtree", lambda *args, **more: None)
        patch.setattr("studio.bring_back.runs.add", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            bring_back(studio, VIEWER, file)
    with monkeypatch.context() as patch:
        patch.setattr("studio.bring_back.ingest.outputs", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            bring_back(studio, VIEWER, file)
    back = bring_back(studio, VIEWER, file)
    assert (back.status, back.result["metrics"]) == ("finished", {"loss": 0.5})
    assert models.get(studio.db, back.result["model_id"]).run_id == back.run_id


def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_unpacked(
    studio: Studio, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, before = packed(trained(carried(studio, run, tmp_path))), set(studio.settings.runs_dir.iterdir())
    monkeypatch.setattr("studio.bring_back.shutil.disk_usage", lambda path: SimpleNamespace(free=2**30))
    with pytest.raises(BadInput, match="more than is free here"):
        bring_back(studio, VIEWER, file)
    monkeypatch.undo()
    monkeypatch.setattr("studio.bring_back.shutil.copyfileobj", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(WorkspaceError, match="free some space"):
        bring_back(studio, VIEWER, file)
    assert set(studio.settings.runs_dir.iterdir()) == before


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + b"\0" * 18])
def test_a_file_that_is_no_archive_is_refused(studio: Studio, run: Run, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "back.tar.gz"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=r"no archive that can be read|holds no run folder"):
        bring_back(studio, VIEWER, file)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as two:
        for name in "ab":
            two.writestr(f"{name}/config.json", "{}")
            two.writestr(f"{name}/events.jsonl", "")
    with pytest.raises(BadInput, match="holds no run folder"):
        bring_back(studio, VIEWER, tmp_path / "two.zip")


def test_a_run_of_another_project_stays_there(studio: Studio, run: Run, tmp_path: Path) -> None:
    file = packed(trained(carried(studio, run, tmp_path)))
    people.set_open_project(studio.db, "local", projects.create(studio.db, "Other").project_id)
    with pytest.raises(BadInput, match="another project"):
        bring_back(studio, VIEWER, file)
    people.set_open_project(studio.db, "local", run.project_id)


# --- on this machine ------------------------------------------------------------------------------------------------------------


def test_a_run_on_several_devices_waits_for_all_of_them(studio: Studio, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(elsewhere.HERE, "accelerate", CHILD)
    again = elsewhere.start_here(studio, VIEWER, elsewhere.of_run(studio, VIEWER, run), Launch(devices=2))
    assert again.device == run_queue.ALL
    assert again.config["args"]["launch"] == {"kind": "accelerate", "preset": "ddp", "devices": 2, "nodes": 1}
    assert wait(studio.db, again.run_id, ended).status == "finished"
    runs.update(studio.db, again.run_id, status="failed")
    studio.jobs.resume(again.run_id)
    assert runs.get(studio.db, again.run_id).device == run_queue.ALL, "also when it goes on"
    wait(studio.db, again.run_id, ended)


@pytest.mark.model
@pytest.mark.slow(reason="Ray starts a cluster: half a minute")
def test_a_ray_job_is_watched_like_any_other_run(studio: Studio, run: Run) -> None:
    """Two workers on a cluster of this machine: what the first one says reaches the run's row and its page."""
    pytest.importorskip("torch")
    pytest.importorskip("ray", reason="Ray is an extra: pip install -r requirements-scale.txt")
    job = elsewhere.start_here(studio, VIEWER, elsewhere.of_run(studio, VIEWER, run), Launch("ray", devices=2))
    assert (job.module, job.device) == ("training.ray_job", run_queue.ALL)
    done = wait(studio.db, job.run_id, ended)
    folder = studio.settings.runs_dir / job.run_id
    assert (done.status, done.error) == ("finished", ""), RunDir(folder).log_tail()
    assert (folder / "rank-1.log").exists(), "two have trained"
    assert (done.progress["done"], done.progress["total"], done.result["steps"]) == (2, 2, 2)
    seen = studio.metrics.of(job.run_id)
    assert [event["step"] for event in seen if "loss" in event] == [1, 2]
    drawn = str(charts(seen))
    assert 'data-chart="loss"' in drawn
    assert 'data-chart="reward-margin"' in drawn
    assert "Loss over the last steps" in str(report(done, studio.metrics.notes(job.run_id)))
    assert done.result["adapter_sha256"] == weights_sha256(folder / "adapter")
    assert models.get(studio.db, done.result["model_id"]).run_id == job.run_id


def test_no_more_processes_than_the_machine_has_devices(studio: Studio, run: Run) -> None:
    with pytest.raises(BadInput, match="that many at most"):
        elsewhere.start_here(studio, VIEWER, elsewhere.of_run(studio, VIEWER, run), Launch(devices=1024))


@pytest.mark.parametrize("launch", [Launch("slurm"), Launch("accelerate", nodes=2)])
def test_what_cannot_be_started_here_says_so(studio: Studio, run: Run, launch: Launch) -> None:
    with pytest.raises(BadInput, match="Only accelerate and Ray on one machine"):
        elsewhere.start_here(studio, VIEWER, elsewhere.of_run(studio, VIEWER, run), launch)
