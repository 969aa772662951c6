"""fetch as a user sees it: files, journal and requests, whatever the server does."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT
from helpers.encodings import encoded, picture
from helpers.image_server import hang_up, image, status
from helpers.programs import SMALL
from helpers.programs import picture as coloured

from deitlt_tf import evaluate, train
from deitlt_tf.fetch import whole

JPEG, PNG = encoded(picture(), "JPEG"), encoded(picture(), "PNG")


def test_images_journal_and_licences(table, run_fetch, server, tmp_path):
    replies = {4005: image(JPEG), 17: image(PNG), 99: status(404)}
    path = table(replies, license=["CC-BY", "CC0", "CC-BY"], creator=["Ana, B.", "", "C"])
    code, printed, lines = run_fetch(path)
    assert code == 0 and "2 of 3 images" in printed and "2 fetched now, 1 not on the server" in printed
    folder = tmp_path / "images"
    assert (folder / "005" / "4005.jpg").read_bytes() == JPEG
    assert (folder / "017" / "17.png").read_bytes() == PNG  # told by its content, not by its address
    sha256 = hashlib.sha256(JPEG).hexdigest()
    assert lines[4005] == {
        "id": 4005, "status": "ok", "http": 200, "bytes": len(JPEG), "sha256": sha256, "file": "005/4005.jpg",
        "url": f"{server.base}/4005.jpg",
    }  # fmt: skip
    assert lines[99]["status"] == "gone" and lines[99]["http"] == 404
    with (folder / "attribution.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["id"], row["file"], row["license"], row["creator"]) for row in rows] == [
        ("4005", "005/4005.jpg", "CC-BY", "Ana, B."), ("17", "017/17.png", "CC0", "")
    ]  # fmt: skip
    assert {entry.name for entry in folder.iterdir()} == {"005", "017", "attribution.csv", "fetch.jsonl", ".lock"}


def test_licences_of_an_earlier_call_stay_and_a_strangers_file_too(table, run_fetch, good, tmp_path):
    path = table({1: good, 2: good, 3: good}, license=["CC-BY", "CC0", "CC-BY-NC"], creator=["Ana", "Bo", "Cy"])
    file = tmp_path / "images" / "attribution.csv"

    def licences():
        with file.open(newline="") as stream:
            return {row["id"]: row["license"] for row in csv.DictReader(stream)}

    for number in (1, 2):
        assert run_fetch(path, f"--keep=photo_id == {number}")[0] == 0
    assert licences() == {"1": "CC-BY", "2": "CC0"}
    (tmp_path / "images" / "001" / "1.jpg").unlink()
    assert run_fetch(path, "--keep=photo_id > 1")[0] == 0
    assert licences() == {"2": "CC0", "3": "CC-BY-NC"}
    file.write_text("mine\n")
    code, printed, _ = run_fetch(path)
    assert code == 1 and "was not written by fetch" in printed and file.read_text() == "mine\n"


@pytest.mark.usefixtures("hurry")
def test_a_second_call_asks_for_nothing_that_is_settled(table, run_fetch, server, good, tmp_path):
    path = table({1: good, 2: status(404), 3: [status(500), status(500), good], 4: image(b"<html>", announced=6)})
    code, printed, lines = run_fetch(path, "--tries=2")
    assert code == 1 and "error: 1 images could not be fetched this time" in printed
    assert lines[3]["status"] == "failed" and lines[4]["status"] == "refused"
    code, printed, lines = run_fetch(path, "--tries=2")
    assert code == 0 and lines[3]["status"] == "ok" and "1 fetched now, 1 there before" in printed
    assert dict(server.asked) == {"/1.jpg": 1, "/2.jpg": 1, "/3.jpg": 3, "/4.jpg": 1}
    server.replies["/2.jpg"] = [good]
    (tmp_path / "images" / "001" / "1.jpg").unlink()
    code, _, lines = run_fetch(path, "--again")
    assert code == 0 and lines[2]["status"] == "ok" and server.asked["/1.jpg"] == server.asked["/2.jpg"] == 2


def test_another_address_is_fetched_anew(table, run_fetch, server, good, tmp_path):
    run_fetch(table({1: good, 2: good}))
    path = table({1: good, 2: good}, urls={2: f"{server.base}/large/2.jpg"})
    server.replies["/large/2.jpg"] = [image(PNG)]
    run_fetch(path)
    assert server.asked["/1.jpg"] == server.asked["/2.jpg"] == server.asked["/large/2.jpg"] == 1
    assert [file.name for file in (tmp_path / "images" / "002").iterdir()] == ["2.png"]


def test_a_line_that_was_cut_off_and_a_file_without_a_line(table, run_fetch, server, good, tmp_path):
    path = table({1: good, 2: good, 3: good})
    run_fetch(path)
    log = tmp_path / "images" / "fetch.jsonl"
    whole_lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(whole_lines[:2]) + whole_lines[2][:20])  # killed while it wrote the line of an image
    before = dict(server.asked)
    code, printed, lines = run_fetch(path)
    assert code == 0 and "3 there before" in printed and dict(server.asked) == before
    assert len(log.read_text().splitlines()) == 3 and {line["status"] for line in lines.values()} == {"ok"}
    log.write_text("rubbish\n" + log.read_text())
    code, printed, _ = run_fetch(path)
    assert code == 1 and f"{log}:1 is no line of a journal" in printed


def test_a_file_that_is_no_image_is_not_taken_for_one_that_was_fetched(table, run_fetch, server, good, tmp_path):
    path = table({1: good})
    (tmp_path / "images" / "001").mkdir(parents=True)
    (tmp_path / "images" / "001" / "1.jpg").write_bytes(JPEG[:50])
    run_fetch(path)
    assert server.asked["/1.jpg"] == 1 and (tmp_path / "images" / "001" / "1.jpg").read_bytes() == JPEG


def test_only_the_rows_that_training_would_use(table, run_fetch, server, good):
    path = table(dict.fromkeys(range(10, 100, 10), good), year=range(2010, 2019))
    run_fetch(path, "--keep=year >= 2013", "--max_images=2")
    assert len(server.asked) == 2 and min(map(len, server.asked)) == len("/50.jpg")


def test_ids_that_are_texts(tmp_path, run_fetch, server, good):
    path = tmp_path / "table.tsv"
    server.replies = {f"/{name}": [good] for name in "ab"}
    path.write_text("uuid\tgenus\tspecies\tsource_url\n" + "".join(f"u-{x}\tA\tb\t{server.base}/{x}\n" for x in "ab"))
    code, _, lines = run_fetch(path)
    assert code == 0 and {*lines} == {"u-a", "u-b"} and lines["u-a"]["file"].endswith(f"/{lines['u-a']['key']}.jpg")
    run_fetch(path)
    assert {*server.asked.values()} == {1}


@pytest.mark.usefixtures("hurry")
def test_a_server_that_wants_hours_of_rest_ends_the_call(table, run_fetch, server, good):
    path = table({1: good, 2: status(429, Retry_After="86400"), 3: good})
    code, printed, lines = run_fetch(path, "--connections=1")
    assert code == 1 and "answers 429 and asks to be left alone for 24 hours" in printed
    assert lines[1]["status"] == "ok" and 2 not in lines
    assert server.asked["/2.jpg"] == 1


def test_a_full_disk_stops_it_at_once(table, run_fetch, good, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "images")

    monkeypatch.setattr(whole, "download", full)
    code, printed, lines = run_fetch(table(dict.fromkeys(range(200), good)))
    assert code == 1 and "No space left on device" in printed and not lines


@pytest.mark.parametrize(
    ("header", "arguments", "message"),
    [
        ("photo_id,genus,species", [], "has no column 'photo_url'"),
        ("photo_id,genus,species,photo_url", ["--keep=gensu == A"], "did you mean genus?"),
        ("photo_id,genus,species,photo_url", ["--data=list"], "--data=list has nothing to fetch"),
        ("photo_id,genus,species,photo_url", ["--data_dir="], "--data_dir is missing"),
        ("photo_id,genus,species,photo_url", ["--table="], "--table is missing"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, run_fetch, header, arguments, message):
    path = tmp_path / "table.csv"
    path.write_text(f"{header}\n1,A,b{',http://x' if 'url' in header else ''}\n")
    code, printed, _ = run_fetch(path, *arguments)
    assert code == 1 and message in printed and printed.count("error:") == 1 and "Traceback" not in printed


def test_one_call_at_a_time(table, run_fetch, good, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "images").mkdir()
    with (tmp_path / "images" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, printed, _ = run_fetch(table({1: good}))
    assert code == 1 and "two processes cannot share a data_dir" in printed


@pytest.mark.slow
def test_what_was_fetched_is_trained_on_and_evaluated(table, server, run_fetch, program, tmp_path):
    """From a table of addresses to a table of accuracies."""
    colours = {"Meles meles": (20, 20, 230), "Vulpes vulpes": (230, 20, 10)}
    replies = {i: image(encoded(coloured(colours[name], i), "PNG")) for i, name in enumerate([*colours] * 20)}
    path = table(replies)
    rows = [row.split(",") for row in path.read_text().splitlines()[1:]]
    lines = [
        f"{key},{name.split()[0]},{name.split()[1]},{row[3]},o{int(key) // 4}"
        for key, name, row in zip(replies, [*colours] * 20, rows, strict=True)
    ]
    path.write_text("photo_id,genus,species,photo_url,observation_id\n" + "\n".join(lines) + "\n")
    assert run_fetch(path)[0] == 0
    arguments = [
        "--data=table",
        f"--table={path}",
        f"--data_dir={tmp_path / 'images'}",
        f"--workdir={tmp_path / 'run'}",
    ]
    code, printed = program(train, *arguments, *SMALL)
    assert code == 0 and "note: " in printed and "in 2 classes" in printed
    code, _ = program(evaluate, f"--workdir={tmp_path / 'run'}", from_workdir=True)
    assert code == 0 and (tmp_path / "run" / "class_names.txt").read_text() == "Meles meles\nVulpes vulpes\n"


@pytest.mark.slow
def test_interrupted_twice_leaves_one_file_and_one_request_for_each_row(table, server, good, tmp_path):
    """Once by Ctrl+C and once by a kill that nothing can answer."""
    path = table(dict.fromkeys(range(1000, 1400), good))
    server.replies["/1003.jpg"] = [hang_up, good]
    folder = tmp_path / "images"
    command = [sys.executable, "-m", "deitlt_tf.fetch", f"--table={path}", f"--data_dir={folder}", "--rate=40"]
    for stop in (signal.SIGINT, signal.SIGKILL):
        before = sum(server.asked.values())
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 300  # a busy machine takes a minute to import
        while sum(server.asked.values()) < before + 60 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, stop)
        printed = process.communicate(timeout=60)
        assert process.returncode == (130 if stop == signal.SIGINT else -signal.SIGKILL), printed
        if stop == signal.SIGINT:
            assert "Traceback" not in printed[1]
            finished = [json.loads(line) for line in (folder / "fetch.jsonl").read_text().splitlines()]
            asked = dict(server.asked)
    done = subprocess.run([*command, "--rate=400"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (folder / "fetch.jsonl").read_text().splitlines()]
    assert len({line["id"] for line in lines}) == len(lines) == 400
    assert sum(1 for file in folder.glob("*/*") if file.suffix == ".jpg") == 400
    for line in finished:
        assert server.asked[f"/{line['id']}.jpg"] == asked[f"/{line['id']}.jpg"] == (2 if line["id"] == 1003 else 1)
    # What was on its way when the program was killed may have been asked for once more, and nothing else.
    assert sum(server.asked.values()) <= 400 + 1 + 2 * 8
    assert not (folder / ".unfinished").exists()
