"""Progress on a terminal is a bar; in a log it is plain lines."""

from __future__ import annotations

import itertools
import re
import sys
from types import SimpleNamespace

import pytest
from transformers.utils import logging as transformers_logging

from doremi.launch import progress
from doremi.training.progress import StepLines, TokenProgress, make
from tests.training.test_interruption import Send, make_trainer


@pytest.fixture
def clock(monkeypatch):
    """Seconds, to be set."""
    now = SimpleNamespace(seconds=0.0)
    for module in ("doremi.launch.progress", "doremi.training.progress"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_lines_of_a_long_operation(capsys, clock):
    """One every half minute, and one at the end."""
    with progress.shown("evaluate main", total=4000, unit="windows") as advance:
        for second in range(0, 80, 10):
            clock.seconds = second
            advance(500)
    assert capsys.readouterr().err.splitlines() == [
        "evaluate main: 2,000 of 4,000 windows, 00:30 left",
        "evaluate main: 3,500 of 4,000 windows, 00:08 left",
        "evaluate main: 4,000 windows in 01:10",
    ]


def test_sizes(capsys, clock):
    with progress.shown("verify", total=2_000_000, unit="bytes", is_size=True) as advance:
        clock.seconds = 40
        advance(1_500_000)
        advance(500_000)
    assert capsys.readouterr().err.splitlines() == [
        "verify: 1.50M of 2.00M bytes, 00:13 left",
        "verify: 2.00M bytes in 00:40",
    ]


def test_what_failed_has_no_last_line(capsys):
    with pytest.raises(ZeroDivisionError), progress.shown("verify", total=2, unit="bytes"):
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.shown("evaluate", total=3, unit="windows") as advance:
        advance(3)
    assert re.search(r"\revaluate: 100%.* 3/3 \[", capsys.readouterr().err)
    assert isinstance(make(tokens_per_step=1, description="a"), TokenProgress)


def test_a_training_step_in_numbers(capsys, clock):
    """20 steps of 100 tokens in 10 s, begun at step 30: 200 tokens/s, and 50 steps of half a second are left."""
    lines = make(tokens_per_step=100, description="proxy")
    assert isinstance(lines, StepLines)
    state = SimpleNamespace(global_step=30, max_steps=1100, is_world_process_zero=True)
    lines.on_train_begin(None, state, None)
    lines.on_log(None, state, None, logs={"loss": 9.0})  # no step yet, so no rate
    clock.seconds, state.global_step = 10, 50
    lines.on_log(None, state, None, logs={"held_out_nats/web": 3.0})
    lines.on_log(None, state, None, logs={"loss": 2.34567})
    state.is_world_process_zero = False
    lines.on_log(None, state, None, logs={"loss": 2.34567})
    expected = "proxy: step 50 of 1,100, loss 2.346, 200 tokens/s, 08:45 left\n"
    assert capsys.readouterr().err == expected


def test_a_log_of_a_training_run(tmp_path, capsys, monkeypatch):
    """A line for each entry of the log, also of the step that an interruption ends with; no carriage return."""
    monkeypatch.setattr(transformers_logging, "_tqdm_active", False)  # as the command line does: those of saving
    settings = {"disable_tqdm": False, "run_name": "proxy"}
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, Send(15, step=7), **settings).train()
    make_trainer(tmp_path, **settings).train(resume_from_checkpoint=True)
    trainer = make_trainer(tmp_path, **settings)
    trainer.train(resume_from_checkpoint=True)  # nothing is left
    stderr = capsys.readouterr().err
    assert "\r" not in stderr
    found = re.findall(
        r"^proxy: step (\d+) of 15, loss ([\d.]+), [\d,]+ tokens/s, \d\d:\d\d left$", stderr, re.MULTILINE
    )
    log = {str(entry["step"]): f"{entry['loss']:.3f}" for entry in trainer.state.log_history if "loss" in entry}
    assert [step for step, _ in found] == ["5", "7", "10", "15"]
    assert dict(found) == log


def test_a_file_that_takes_long_to_prepare(tmp_path, monkeypatch, caplog):
    """Where there is no bar, its documents are counted every half minute, and not only when it is done."""
    from doremi.corpus import prepare
    from doremi.corpus.config import CorpusConfig

    clock = itertools.count(0, 20)  # every look takes 20 s
    monkeypatch.setattr("doremi.corpus.preparing.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr("doremi.corpus.reading.documents.CHUNK_BYTES", 300)
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{"word " * 50}{i}"}}\n' for i in range(100)))
    config = CorpusConfig(inputs=[{"path": str(tmp_path / "a.jsonl"), "domain": "a"}], tokenizer={"vocab_size": 260})
    with caplog.at_level("INFO", logger="doremi"):
        prepare(config, tmp_path / "out")
    lines = [message for message in caplog.messages if message.startswith("tokenise: 0 of 1 input files, ")]
    assert lines
    assert all(line.endswith(" MB so far") for line in lines)


def test_of_several_processes_the_first_one_shows_it(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with progress.shown("evaluate", total=3, unit="windows") as advance:
        advance(3)
    assert capsys.readouterr().err == ""
