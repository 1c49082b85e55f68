"""The log of a job: all of it in the file, the gist in the terminal, each error once."""

from __future__ import annotations

import contextlib
import logging

import pytest

from unveil.errors import InputError, ModelError
from unveil.workflow.job import Failures, job


@pytest.fixture
def told(tmp_path, capfd):
    """Run a block as a job; give what stands in its file and in the terminal."""

    def run(block) -> tuple[str, str]:
        path, root = tmp_path / "log", logging.getLogger()
        before, level = root.handlers[:], root.level
        try:
            with contextlib.suppress(SystemExit), job(path) as logger:
                block(logger)
        finally:
            root.handlers[:] = before
            root.setLevel(level)
            logging.captureWarnings(False)
        return path.read_text(), capfd.readouterr().err

    return run


def test_a_kind_of_warning_takes_one_line_of_the_terminal_and_one_sums_up(told):
    def block(logger):
        for number in range(12):
            logger.warning("scene %d: no cloud detector applies", number)
        logger.warning("another thing")

    file, terminal = told(block)
    assert file.count("no cloud detector") == 12
    assert terminal.count("no cloud detector") == 1 and "another thing" in terminal
    assert "11 more warnings like these" in terminal and "/log" in terminal
    assert len(terminal.splitlines()) == 3


def test_progress_shows_now_and_then(told, monkeypatch):
    clock = iter(range(0, 1000, 10))  # a line every ten seconds
    monkeypatch.setattr("unveil.workflow.job.time.monotonic", lambda: next(clock))

    def block(logger):
        for number in range(9):
            logger.info("scene %d of 9", number)

    file, terminal = told(block)
    assert file.count("of 9") == 9
    assert [line.split(": ")[-1] for line in terminal.splitlines()] == [
        "scene 0 of 9",
        "scene 3 of 9",
        "scene 6 of 9",
    ]


def test_an_error_is_said_once(told):
    def block(_):
        failures = Failures("scene")
        with failures.collect("alps"):
            raise InputError("is damaged", file="a.tif", remedy="copy it again")
        failures.report()

    file, terminal = told(block)
    assert file.count("is damaged") == terminal.count("is damaged") == 1
    assert "scene alps: a.tif" in terminal


def test_of_many_errors_each_is_said_once_and_all_are_counted(told):
    def block(_):
        failures = Failures("scene")
        for name in ("alps", "etna"):
            with failures.collect(name):
                raise InputError(f"{name}.tif is damaged")
        failures.report()

    file, terminal = told(block)
    for text in (file, terminal):
        assert text.count("alps.tif is damaged") == text.count("etna.tif is damaged") == 1
        assert text.count("2 of them failed: alps, etna") == 1


def test_traces_are_for_the_file(told):
    def block(_):
        raise RuntimeError("a defect")

    file, terminal = told(block)
    assert "Traceback" in file and "RuntimeError: a defect" in terminal
    assert "please report it with" in terminal and "Traceback" not in terminal


def test_who_wrote_a_model_finds_the_trace_in_the_file(told):
    def block(_):
        try:
            _ = 1 / 0
        except ZeroDivisionError as error:
            raise ModelError("model 'mine' failed on scene s") from error

    file, terminal = told(block)
    assert "model 'mine' failed" in terminal and "Traceback" not in terminal
    assert "ZeroDivisionError" in file and "report" not in file
