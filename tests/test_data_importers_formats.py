"""Formats and faults: what a file's bytes may look like, and the one sentence for each that cannot be read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import importers, json_stream, projects, prompts, source
from data.columns import ColumnMap
from data.database import Database
from data.errors import BadInput
from data.readers import Record, Records, escape, unescape
from data.settings import Settings

ROWS = [{"prompt": f"Wie heißt Stadt {i}?", "reference": f"Stadt “{i}” 🙂\nzweite Zeile"} for i in range(30)]


@pytest.fixture
def folder(settings: Settings) -> Path:
    settings.import_dir.mkdir(parents=True)
    return settings.import_dir


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: list[dict[str, str]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[Any], **options: Any) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), out, **options)
    return bytes(out.getvalue())


GOOD: dict[str, bytes] = {
    "lines.jsonl": jsonl(ROWS),
    "lines.ndjson": jsonl(ROWS),
    "bom.jsonl": b"\xef\xbb\xbf" + jsonl(ROWS),
    "crlf.jsonl": jsonl(ROWS).replace(b"\n", b"\r\n"),
    "no-newline-at-end.jsonl": jsonl(ROWS).rstrip(b"\n"),
    "blank-lines.jsonl": b"\n\n" + jsonl(ROWS).replace(b"\n", b"\n\n"),
    "lines.jsonl.gz": gzip.compress(jsonl(ROWS)),
    "gzip-without-the-ending.jsonl": gzip.compress(jsonl(ROWS)),
    "two-gzip-members.jsonl.gz": gzip.compress(jsonl(ROWS[:10])) + gzip.compress(jsonl(ROWS[10:])),
    "lines-called.json": jsonl(ROWS),
    "list.json": json.dumps(ROWS).encode(),
    "list-called.jsonl": json.dumps(ROWS, indent=2).encode(),
    "pretty.json": json.dumps(ROWS, indent=4, ensure_ascii=False).encode(),
    "bom.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "wrapped.json": json.dumps(
        {"version": 1, "tags": ["a", "b"], "features": [{"name": "prompt"}], "data": ROWS, "more": [1]}
    ).encode(),
    "wrapped-pretty.json": json.dumps({"data": ROWS}, indent=1).encode(),
    "list.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "table.csv": as_csv(ROWS),
    "bom.csv": b"\xef\xbb\xbf" + as_csv(ROWS),
    "semicolons.csv": as_csv(ROWS, ";"),
    "tabs.tsv": as_csv(ROWS, "\t"),
    "table.csv.gz": gzip.compress(as_csv(ROWS)),
    "table.parquet": as_parquet(ROWS),
    "row-groups.parquet": as_parquet(ROWS, row_group_size=7, compression="zstd"),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_format_gives_the_same_rows(folder: Path, name: str) -> None:
    (folder / name).write_bytes(GOOD[name])
    records = Records(folder / name)
    records.check()
    assert [record.row for record in records] == ROWS


def test_a_list_is_read_whatever_the_windows_edge_cuts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chunk size from 1 on: numbers, escapes and multi-byte characters are cut at every place."""
    rows = [{"prompt": 'ü\\"]},{🙂', "n": 12345, "x": -1.5e-10, "deep": [[1], {"a": None}], "t": True}, {"prompt": "b"}]
    path = folder / "cut.json"
    path.write_bytes(b'{"n": 12, "rows": ' + json.dumps(rows, ensure_ascii=False).encode() + b"}")
    for size in range(1, 60):
        monkeypatch.setattr(json_stream, "CHUNK", size)
        monkeypatch.setattr(source, "CHUNK", size + 1)
        assert [record.row for record in Records(path)] == rows


def test_lines_count_from_one_as_an_editor_does(folder: Path) -> None:
    files = {
        "a.jsonl": b'{"prompt": "a"}\n\n{"prompt": \n{"prompt": "d"}\n',
        "b.json": b'[\n {"prompt": "a"},\n\n 7,\n {"prompt":\n "d"}\n]',
        "c.csv": b'prompt,reference\n"a\nb",1\nonly one\nd,2\n',
        "d.json": b'{"data": [\n{"prompt": "a"},\n[1]]}',
    }
    seen = {}
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
        seen[name] = [(record.line, record.row is not None) for record in Records(folder / name)]
    assert seen == {
        "a.jsonl": [(1, True), (3, False), (4, True)],
        "b.json": [(2, True), (4, False), (5, True)],
        "c.csv": [(2, True), (4, False), (5, True)],
        "d.json": [(2, True), (3, False)],
    }


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{'prompt': 'a'}", "not valid JSON"),
    "cut off": (b'{"prompt": "a', "not valid JSON"),
    "no object": (b'["a"]', "not a JSON object"),
    "null": (b"null", "not a JSON object"),
    "deep": (b'{"prompt": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
    "many digits": (b'{"prompt": ' + b"9" * 10_000 + b"}", "too many digits"),
    "NaN": (b'{"prompt": NaN}', "the prompt is not a number or text but nan"),
    "infinity": (b'{"prompt": -Infinity}', "but -inf"),
    "lone surrogate": (b'{"prompt": "a \\ud83d b"}', "half a character"),
    "too long": (b'{"prompt": "' + b"a" * (9 * 2**20) + b'"}', "longer than 8 MB"),
    "empty": (b'{"prompt": " "}', "the prompt is empty"),
    "missing": (b'{"other": 1}', "'prompt' is missing"),
    "null prompt": (b'{"prompt": null}', "'prompt' is missing"),
    "a list": (b'{"prompt": {"a": 1}}', "not text but a dict"),
    "roles": (b'{"prompt": [{"role": "tool", "content": "x"}]}', "the role 'tool'"),
    "image": (b'{"prompt": [{"role": "user", "content": [{"type": "image"}]}]}', "something other than text"),
    "ends with answer": (b'{"prompt": [{"role": "assistant", "content": "x"}]}', "does not end with a user's turn"),
}


def test_bad_rows_are_reported_by_line_and_the_good_ones_go_in(settings: Settings, db: Database) -> None:
    lines, expected = [], {}
    for number, (raw, reason) in enumerate(BAD_LINES.values()):
        lines += [b'{"prompt": "good %d"}' % number, raw]
        expected[2 * number + 2] = reason
    path = settings.import_dir / "mixed.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    preview = importers.read(settings, path)
    project = projects.create(db, "Mixed")
    report = importers.load(db, project.project_id, path)
    for problems in (preview.problems, report.problems):
        assert {line: reason for line, reason in problems if expected[line] not in reason} == {}
        assert len(problems) == len(BAD_LINES)
    assert (preview.good, report.prompts_added, report.problem_count) == (len(BAD_LINES), len(BAD_LINES), len(BAD_LINES))
    assert {p.text for p in prompts.of_project(db, project.project_id)} == {f"good {i}" for i in range(len(BAD_LINES))}


def test_a_thousand_problems_are_kept_and_all_are_counted(settings: Settings, db: Database) -> None:
    path = settings.import_dir / "awful.jsonl"
    path.write_bytes(b'{"prompt": "one"}\n' + b"{\n" * 3000)
    report = importers.load(db, projects.create(db, "Awful").project_id, path)
    assert (len(report.problems), report.problem_count, report.prompts_added) == (1000, 3000, 1)
    assert report.problems[0].line == 2


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.jsonl", b"", "is empty"),
    "empty gzip": ("a.jsonl.gz", gzip.compress(b""), "nothing but blank lines"),
    "blank": ("a.jsonl", b" \n\n \t\n", "nothing but blank lines"),
    "empty list": ("a.json", b"[]", "no row that can be read"),
    "only a header": ("a.csv", b"prompt,reference\n", "no row that can be read"),
    "no rows": ("a.parquet", as_parquet([]), "no rows"),
    "UTF-16": ("a.jsonl", '{"prompt": "ü"}'.encode("utf-16"), "UTF-16.*line 1"),
    "UTF-16 without a mark": ("a.jsonl", '{"prompt": "ü"}\n'.encode("utf-16-le"), "UTF-16"),
    "UTF-16 big-endian": ("a.csv", "prompt\nü\n".encode("utf-16-be"), "UTF-16"),
    "UTF-16 JSON": ("a.json", '[{"prompt": "ü"}]'.encode("utf-16"), "UTF-16"),
    "UTF-32": ("a.csv", "prompt\nü\n".encode("utf-32"), "UTF-32"),
    "Latin-1": ("a.jsonl", b'{"prompt": "a"}\n{"prompt": "caf\xe9"}\n', "not UTF-8: line 2 holds the byte 0xE9"),
    "Latin-1 CSV": ("a.csv", b"prompt\nok\ncaf\xe9\n", "not UTF-8: line 3"),
    "Latin-1 JSON": ("a.json", b'[\n{"prompt": "a"},\n{"prompt": "caf\xe9"}]', "not UTF-8: line 3"),
    "Latin-1 in a gzip": ("a.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n{"prompt": "caf\xe9"}\n'), "not UTF-8: line 2"),
    "cut-off gzip": ("a.jsonl.gz", gzip.compress(jsonl(ROWS))[:-30], "cut off: the gzip data end too early"),
    "broken gzip": ("a.jsonl.gz", gzip.compress(os.urandom(4000))[:200] + b"x" * 3000, "gzip"),
    "cut-off JSON": ("a.json", json.dumps(ROWS).encode()[:-40], "cut off or not valid JSON from line 1"),
    "JSON with single quotes": ("a.json", b"[{'prompt': 'a'}]", "not valid JSON from line 1"),
    "two lists": ("a.json", b'[{"prompt": "a"}]\n[{"prompt": "b"}]', "goes on after its list"),
    "an object without rows": ("a.json", json.dumps({"a": {"b": 1}, "c": {"d": 2}}).encode(), "without a list of rows"),
    "deep JSON": ("a.json", b"[" * 100_000, "nested too deeply|cut off"),
    "a string": ("a.json", b'"prompt"', "neither a JSON list nor JSON lines"),
    "HTML": ("a.json", b"<html><body>not found</body></html>", "neither a JSON list"),
    "no parquet": ("a.parquet", b"hello", "not a Parquet file"),
    "cut-off parquet": ("a.parquet", as_parquet(ROWS)[:-50], "damaged, cut off or no Parquet file"),
    "parquet with its middle gone": (
        "a.parquet",
        as_parquet(ROWS)[:40] + b"\0" * 60 + as_parquet(ROWS)[100:],
        "damaged|no row that can be read",
    ),
    "unknown ending": ("a.txt", b"hello\n", "ending that is not known"),
    "a picture": ("a.png", b"\x89PNG\r\n\x1a\n\0\0", "ending that is not known"),
    "a picture called jsonl": ("a.jsonl", b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8: line 1"),
    "missing columns": ("a.csv", b"model,score\nx,1\n", "it has 'model', 'score'"),
    "no header": ("a.csv", b",,\na,b,c\n", "line 1 does not name the columns"),
    "doubled header": ("a.csv", b"prompt,prompt\na,b\n", "names the column 'prompt' twice"),
    "old Mac lines": ("a.csv", b"prompt,reference\ra,b\rc,d\r", "line 1 is not a valid CSV header"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_cannot_be_read_ends_in_one_sentence_and_stores_nothing(settings: Settings, db: Database, what: str) -> None:
    name, raw, sentence = REFUSED[what]
    path = settings.import_dir / name
    path.write_bytes(raw)
    project = projects.create(db, "Refused")
    for attempt in (lambda: importers.read(settings, path), lambda: importers.load(db, project.project_id, path)):
        with pytest.raises(BadInput, match=sentence) as refused:
            attempt()
        assert "\n" not in str(refused.value)
        assert name in str(refused.value)
        assert "Traceback" not in str(refused.value)
    assert db.value("select count(*) from prompts") == 0


def test_another_encoding_far_down_is_found_before_anything_is_stored(settings: Settings, db: Database) -> None:
    path = settings.import_dir / "late.jsonl"
    rows = [b'{"prompt": "question %d"}\n' % i for i in range(5000)]
    path.write_bytes(b"".join([*rows, b'{"prompt": "caf\xe9"}\n']))
    with pytest.raises(BadInput, match="line 5001 holds the byte 0xE9"):
        importers.load(db, projects.create(db, "Late").project_id, path)
    assert db.value("select count(*) from prompts") == 0


def test_a_list_that_breaks_off_far_down_keeps_what_came_before_and_says_so(settings: Settings, db: Database) -> None:
    path = settings.import_dir / "half.json"
    path.write_bytes(json.dumps([{"prompt": f"question {i}"} for i in range(3000)]).encode()[:-20])
    report = importers.load(db, projects.create(db, "Half").project_id, path)
    assert report.prompts_added == 2999
    assert "cut off or not valid JSON" in report.stopped
    assert "Reading stopped after row 2,999" in report.summary


def test_a_gzip_bomb_is_refused_before_it_fills_the_memory(
    settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "BOMB_BYTES", 16 * 2**20)
    line = b'{"prompt": "' + b" " * 2**20 + b'a"}\n'
    path = settings.import_dir / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(40):
            file.write(line)
    assert path.stat().st_size < 2**20
    with pytest.raises(BadInput, match="unpacks to more than 200 times its size"):
        importers.load(db, projects.create(db, "Bomb").project_id, path)
    assert db.value("select count(*) from prompts") == 0


def test_a_list_in_one_line_longer_than_any_row_may_be(folder: Path) -> None:
    rows = [{"prompt": f"{i} " + "a" * 10_000} for i in range(1_000)]
    for name in ("long.json", "long.jsonl", "long.json.gz"):
        raw = json.dumps(rows).encode()
        (folder / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
        assert [record.row for record in Records(folder / name)] == rows


def test_an_unclosed_quote_is_one_bad_row_that_says_so(folder: Path) -> None:
    path = folder / "quote.csv"
    path.write_bytes(b'prompt,reference\na,1\n"b,2\nc,3\n')
    assert list(Records(path)) == [
        Record(2, {"prompt": "a", "reference": "1"}, "", 2),
        Record(3, None, "a quote is opened in this row and not closed in the rest of the file"),
    ]


def test_parquet_columns_of_odd_types(settings: Settings) -> None:
    rows = [{"prompt": [{"role": "user", "content": "hi"}], "blob": b"\xff\xfe", "n": 1.5, "reference": None}]
    path = settings.import_dir
    path.mkdir(parents=True)
    (path / "odd.parquet").write_bytes(as_parquet(rows))
    (item,) = importers.read(settings, path / "odd.parquet").sample
    assert (item.messages[0].content, item.reference) == ("hi", "")


def test_a_mapping_chosen_by_hand_wins(settings: Settings, db: Database) -> None:
    path = settings.import_dir / "own.csv"
    path.write_bytes(b"frage;antwort;thema\nWie viel?;Viel;Zahlen\n")
    with pytest.raises(BadInput, match="'frage', 'antwort', 'thema'"):
        importers.read(settings, path)
    mapping = ColumnMap("prompts", prompt="frage", reference="antwort", category="thema")
    preview = importers.read(settings, path, mapping)
    assert preview.description[1] == "“frage” is the prompt."
    project = projects.create(db, "Own")
    importers.load(db, project.project_id, path, ColumnMap.from_json(json.loads(json.dumps(mapping.to_json()))))
    (prompt,) = prompts.of_project(db, project.project_id)
    assert (prompt.text, prompt.reference, prompt.category, prompt.source) == ("Wie viel?", "Viel", "Zahlen", "own.csv")
    for wrong, sentence in (
        (ColumnMap("prompts"), "Say which column holds the prompt"),
        (ColumnMap("prompts", prompt="x"), "no column 'x'"),
    ):
        with pytest.raises(BadInput, match=sentence):
            importers.read(settings, path, wrong)


def test_progress_goes_from_nothing_to_the_whole_file(settings: Settings, db: Database) -> None:
    settings.import_dir.mkdir(parents=True, exist_ok=True)
    for name, raw in (
        ("p.jsonl", jsonl([{"prompt": f"question {i}"} for i in range(5000)])),
        ("p.parquet", as_parquet([{"prompt": f"q {i}"} for i in range(5000)])),
    ):
        path = settings.import_dir / name
        path.write_bytes(raw)
        seen: list[tuple[int, float]] = []
        importers.load(
            db, projects.create(db, name).project_id, path, progress=lambda rows, share, seen=seen: seen.append((rows, share))
        )
        assert [rows for rows, _ in seen] == [2000, 4000, 5000]
        assert seen == sorted(seen)
        assert seen[-1][1] == 1.0


def test_a_preview_of_a_long_file_says_how_far_it_looked(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importers, "PREVIEW_ROWS", 10)
    settings.import_dir.mkdir(parents=True)
    (settings.import_dir / "long.jsonl").write_bytes(jsonl(ROWS))
    (settings.import_dir / "long.parquet").write_bytes(as_parquet(ROWS))
    lines, table = (importers.read(settings, Path(name)) for name in ("long.jsonl", "long.parquet"))
    assert (lines.rows, lines.complete, lines.total_rows) == (10, False, None)
    assert lines.summary == "first 10 rows checked: 10 prompts, 0 answers, 0 labels."
    assert (table.rows, table.complete, table.total_rows) == (10, False, 30)


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "＝1", "'=1", "''-", "'", "", "a=1", "'a", " =1"])
def test_a_formula_in_a_cell_is_disarmed_and_comes_back(cell: str) -> None:
    assert unescape(escape(cell)) == cell
    assert escape(cell)[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n", "＝")


def peak_memory(code: str, *args: str) -> int:
    """Peak resident MB of a process of its own."""
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(settings: Settings) -> None:
    """Half a gigabyte in each format is read within 150 MB over what the imports take."""
    settings.import_dir.mkdir(parents=True)
    text = ("Lorem ipsum dolor sit amet. " * 300)[:8000]
    row = {"prompt": text}
    count = 60_000
    body = json.dumps(row).encode()
    with (settings.import_dir / "big.jsonl").open("wb") as lines, (settings.import_dir / "big.json").open("wb") as listed:
        listed.write(b"[")
        for i in range(count):
            lines.write(body + b"\n")
            listed.write((b"," if i else b"") + body)
        listed.write(b"]")
    with (settings.import_dir / "big.csv").open("w") as table:
        table.write("prompt\n" + f'"{text}"\n' * count)
    schema = pa.schema([("prompt", pa.string())])
    with pq.ParquetWriter(settings.import_dir / "big.parquet", schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, count, 10_000):
            writer.write_table(pa.table({"prompt": [f"{i} {text}" for i in range(start, start + 10_000)]}, schema=schema))
    code = """
import resource, sys
from pathlib import Path
import pyarrow.parquet
from data.readers import Records
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
n = sum(1 for record in Records(Path(sys.argv[1])) if record.row is not None)
assert n == 60_000, n
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    for name in ("big.jsonl", "big.json", "big.csv", "big.parquet"):
        assert peak_memory(code, str(settings.import_dir / name)) < 150, name
