"""The lines of fetch's journal."""

import json

import pytest

from deitlt_tf.data.table import journal


def test_lines_are_read_as_they_are_written(tmp_path):
    lines = [
        journal.line(
            image="17", key=17, status="ok", url="http://x/17", http=200, bytes=5, sha256="ab", file="017/17.jpg"
        ),
        journal.line(image="u-1", key=12345, status="gone", url="http://x/u", http=404, reason="Not Found"),
    ]
    assert [*lines[0]] == ["id", "status", "http", "bytes", "sha256", "file", "url"]
    assert lines[1] == {
        "id": "u-1", "key": 12345, "status": "gone", "http": 404, "reason": "Not Found", "url": "http://x/u"
    }  # fmt: skip
    path = tmp_path / "fetch.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = journal.read(str(path))
    assert first[:3] == (17, "ok", "017/17.jpg") and second[:3] == (12345, "gone", "")
    assert first.url == journal.url_key("http://x/17") != second.url


@pytest.mark.parametrize("text", ["no JSON", "[]", "{}", '{"id": 1}', '{"id": "x", "status": "ok", "url": ""}', "5"])
def test_only_the_last_line_may_be_cut_off(tmp_path, text):
    good = json.dumps(journal.line(image="1", key=1, status="ok", url="http://x")) + "\n"
    path = tmp_path / "fetch.jsonl"
    path.write_text(good + text)
    assert len([*journal.read(str(path))]) == 1
    path.write_text(good + text + "\n" + good)
    with pytest.raises(ValueError, match=r"fetch\.jsonl:2 is no line of a journal"):
        [*journal.read(str(path))]
