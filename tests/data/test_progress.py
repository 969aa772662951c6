"""Progress bars."""

from deitlt_tf.data.progress import bar_of


def test_bars_fill_no_log_files(monkeypatch):
    assert bar_of(None)["disable"] and not bar_of("x")["disable"]
    for terminal, seconds in ((True, 0.5), (False, 30)):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        assert bar_of("x")["mininterval"] == seconds
