"""Real faults in a process of its own: SIGKILL anywhere, a full disk, two at once. The bytes end up the same."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from doremi.corpus import prepare
from doremi.corpus.config import CorpusConfig
from doremi.corpus.preparing.units import Encoder
from doremi.corpus.storing.lock import locked
from doremi.errors import InputError, RunFailedError
from tests.corpus.conftest import content

pytestmark = pytest.mark.usefixtures("file_by_file")

PRELUDE = """
import os, resource, signal, sys
from doremi.corpus import prepare
from doremi.corpus.preparing import work
from doremi.errors import InputError
from doremi.corpus.config import CorpusConfig
work.UNIT_BYTES = 0
config = CorpusConfig.model_validate_json(sys.argv[1])
"""
KILLED_AT_STEP = """
step = int(sys.argv[3])
def dies_at_step(call):  # everything that becomes visible goes through os.fsync, then a rename
    def wrapped(*arguments):
        global step
        step -= 1
        if step == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    return wrapped
os.fsync = dies_at_step(os.fsync)
prepare(config, sys.argv[2])
"""
LITTLE_ROOM = """
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    prepare(config, sys.argv[2])
except InputError as error:
    print(error)
    sys.exit(2)
"""
WAITING = """
from doremi.corpus.preparing.units import Encoder
def encode_and_wait(*arguments, **settings):
    print("locked", flush=True)
    sys.stdin.read()
Encoder.encode = encode_and_wait
prepare(config, sys.argv[2])
"""


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", PRELUDE + textwrap.dedent(script), *map(str, arguments)]


def run(script: str, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(command(script, *arguments), stdout=subprocess.PIPE, text=True, check=False)


def ends(pid: int) -> bool:
    """Whether a process that is not our child ends within a while; nobody may be there to reap it."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def config(write_jsonl, tmp_path) -> CorpusConfig:
    """Three training files of two domains and one of held-out documents."""
    for number in range(3):
        records = [{"text": f"{number} {i} " + "abc " * (i % 50), "set": "ab"[i % 2]} for i in range(400)]
        write_jsonl(f"in/{number}.jsonl", records)
    held_out = write_jsonl("held.jsonl", [{"text": f"held {i}", "set": "ab"[i % 2]} for i in range(10)])
    return CorpusConfig(
        inputs=[{"path": str(tmp_path / "in"), "domain_field": "set"}],
        held_out_inputs=[{"path": str(held_out), "domain_field": "set"}],
        tokenizer={"vocab_size": 300},
    )


@pytest.fixture
def undisturbed(config, tmp_path) -> dict[str, bytes]:
    return content(prepare(config, tmp_path / "undisturbed").path)


# Of 42 steps: 1 the plan, 3 hashes, 5 and 7 the tokenizer, shards and a marker for each of four files, 41 the manifest.
@pytest.mark.parametrize("step", [1, 3, 7, 10, 16, 21, 40, 42])
def test_killed_at_any_step_the_next_run_ends_with_the_same_bytes(config, undisturbed, tmp_path, step):
    folder = tmp_path / "killed"
    assert run(KILLED_AT_STEP, config.model_dump_json(), folder, step).returncode == -9
    assert (folder / "manifest.json").exists() == (step == 42)
    prepare(config, folder)
    assert content(folder) == undisturbed


def test_there_is_no_further_step(config, undisturbed, tmp_path):
    assert run(KILLED_AT_STEP, config.model_dump_json(), tmp_path / "whole", 43).returncode == 0
    assert content(tmp_path / "whole") == undisturbed


def test_the_next_run_goes_on_with_the_files_that_are_left(config, tmp_path, monkeypatch):
    folder = tmp_path / "killed"
    assert run(KILLED_AT_STEP, config.model_dump_json(), folder, 27).returncode == -9
    num_finished = len(list(folder.glob("work/finished/*.json")))
    encoded = []
    encode = Encoder.encode

    def recorded(self, ordinal, unit, **settings):
        encoded.append(unit)
        encode(self, ordinal, unit, **settings)

    monkeypatch.setattr(Encoder, "encode", recorded)
    prepare(config, folder)
    assert num_finished == 2
    assert [unit.files[0].paths[0].name for unit in encoded] == ["1.jsonl", "2.jsonl"]


@pytest.mark.parametrize(("room", "tokenizer_fits"), [(2_000, False), (8_000, True)])  # then no shard does
def test_full_disk_says_so_and_the_next_run_completes(config, undisturbed, tmp_path, room, tokenizer_fits):
    folder = tmp_path / "full"
    process = run(LITTLE_ROOM, config.model_dump_json(), folder, room)
    assert process.returncode == 2
    assert "no room to write: File too large; free some space and run this again" in process.stdout
    assert (folder / "tokenizer" / "tokenizer.json").exists() == tokenizer_fits
    assert not list(folder.glob("train/*/*")) + list(folder.glob("manifest.json"))
    prepare(config, folder)
    assert content(folder) == undisturbed


def test_second_preparation_says_who_holds_the_lock(config, undisturbed, tmp_path):
    folder = tmp_path / "shared"
    waiting = command(WAITING, config.model_dump_json(), folder)
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match=rf"shared: being prepared by process {holder.pid} on host \S+; wait"):
            prepare(config, folder)
        holder.kill()
    assert content(prepare(config, folder).path) == undisturbed  # the kernel gave the lock back


def test_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        pass


def test_inputs_that_changed_since_are_refused(config, tmp_path, write_jsonl):
    folder = tmp_path / "killed"
    assert run(KILLED_AT_STEP, config.model_dump_json(), folder, 24).returncode == -9
    write_jsonl("in/1.jsonl", [{"text": "other", "set": "a"}])
    with pytest.raises(InputError, match=r"begun here with other inputs \(.*1\.jsonl\) and not finished; delete"):
        prepare(config, folder)


def test_settings_may_change_while_no_input_file_is_encoded(config, tmp_path, write_jsonl):
    """The usual first attempt: a mistake in the recipe."""
    wrong = config.model_copy(update={"inputs": [config.inputs[0].model_copy(update={"text_field": "txet"})]})
    with pytest.raises(InputError, match="txet"):
        prepare(wrong, tmp_path / "mended")
    prepare(config, tmp_path / "undisturbed")
    assert content(prepare(config, tmp_path / "mended").path) == content(tmp_path / "undisturbed")


def test_settings_that_changed_since_are_refused(config, tmp_path):
    folder = tmp_path / "killed"
    assert run(KILLED_AT_STEP, config.model_dump_json(), folder, 24).returncode == -9
    other = config.model_copy(update={"on_bad_record": "skip"})
    with pytest.raises(InputError, match="begun here with other settings and not finished"):
        prepare(other, folder)


class TestWorkers:
    """The same corpus by several processes."""

    @pytest.fixture
    def parallel(self, config) -> CorpusConfig:
        return config.model_copy(update={"num_workers": 2})

    def test_the_bytes_do_not_depend_on_their_number(self, parallel, undisturbed, tmp_path, caplog, capsys):
        caplog.set_level("INFO")
        caplog.clear()
        assert content(prepare(parallel, tmp_path / "parallel").path) == undisturbed
        progress = [record.message for record in caplog.records if record.message.startswith("tokenise")]
        assert [line.partition(" (")[2] for line in progress] == [
            f"{number} of 4 input files)" for number in range(1, 5)
        ]

    def test_an_error_arrives_with_its_line(self, parallel, tmp_path, tokenizer_folder):
        with (tmp_path / "in" / "1.jsonl").open("a") as file:
            file.write("{bad\n")
        loaded = parallel.model_copy(update={"tokenizer": type(parallel.tokenizer)(path=str(tokenizer_folder))})
        with pytest.raises(InputError, match=r"1\.jsonl:401: not valid JSON"):
            prepare(loaded, tmp_path / "parallel")

    @pytest.fixture
    def with_reader(self, parallel, add_reader, tokenizer_folder):
        loaded = type(parallel.tokenizer)(path=str(tokenizer_folder))
        return add_reader(parallel.model_copy(update={"tokenizer": loaded}))

    def test_a_killed_worker_is_reported(self, with_reader, tmp_path):
        (tmp_path / "script.py").write_text("os.kill(os.getpid(), signal.SIGKILL)")
        with pytest.raises(RunFailedError, match=r"a worker process was killed.*smaller corpus\.num_workers"):
            prepare(with_reader, tmp_path / "out")
        (tmp_path / "script.py").unlink()
        assert content(prepare(with_reader, tmp_path / "out").path) == content(
            prepare(with_reader, tmp_path / "undisturbed").path
        )

    @pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
    def test_workers_die_with_their_parent(self, with_reader, tmp_path):
        pid_file = tmp_path / "pid"
        kill_parent = f"pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n"
        kill_parent += "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)"
        (tmp_path / "script.py").write_text(kill_parent)
        begin = command("prepare(config, sys.argv[2])", with_reader.model_dump_json(), tmp_path / "out")
        with subprocess.Popen(begin, start_new_session=True) as parent:
            assert parent.wait() == -signal.SIGKILL
        try:
            assert ends(int(pid_file.read_text()))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
        (tmp_path / "script.py").unlink()
        assert content(prepare(with_reader, tmp_path / "out").path) == content(
            prepare(with_reader, tmp_path / "undisturbed").path
        )
