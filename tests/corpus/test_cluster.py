"""Tasks run by datatrove's own executors, here and on a Ray cluster of this machine: the same bytes as without them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from doremi.corpus import prepare
from doremi.corpus.config import CorpusConfig
from doremi.corpus.preparing.tasks import EncodeShare, Finish
from doremi.corpus.storing import lock
from doremi.corpus.storing.lock import joined, locked
from doremi.errors import InputError, RunFailedError
from tests.corpus.conftest import content

pytestmark = pytest.mark.usefixtures("file_by_file")


@pytest.fixture
def config(write_jsonl, tmp_path, tokenizer_folder) -> CorpusConfig:
    """Five training files of two domains, one of held-out documents, and a reader that runs ``script.py``."""
    for number in range(5):
        records = [{"text": f"{number} {i} " + "abc " * (i % 50), "set": "ab"[i % 2]} for i in range(200)]
        write_jsonl(f"in/{number}.jsonl", records)
    held_out = write_jsonl("held.jsonl", [{"text": f"held {i}", "set": "ab"[i % 2]} for i in range(10)])
    return CorpusConfig(
        inputs=[{"path": str(tmp_path / "in"), "domain_field": "set"}],
        held_out_inputs=[{"path": str(held_out), "domain_field": "set"}],
        tokenizer={"path": str(tokenizer_folder)},
    )


@pytest.fixture
def with_reader(config, add_reader) -> CorpusConfig:
    return add_reader(config)


def add(folder: Path) -> str:
    (folder / "5.jsonl").write_text("")
    return "5.jsonl"


def remove(folder: Path) -> str:
    (folder / "4.jsonl").unlink()
    return "4.jsonl"


def touch(folder: Path) -> str:
    os.utime(folder / "2.jsonl", (1, 1))
    return "2.jsonl"


OTHER_FILES = {"one more": add, "one less": remove, "one that changed": touch}


def planned(config: CorpusConfig, folder: Path) -> None:
    """A preparation that has been begun, and in which nothing is encoded."""

    def nothing(*_: object) -> None:
        raise InputError("planned")

    with pytest.raises(InputError, match="planned"):
        prepare(config, folder, encode_all=nothing)


class TestShares:
    """What a task does, called as an engine calls it."""

    @pytest.mark.parametrize("num_tasks", [1, 4])
    def test_all_shares_and_the_finish_make_the_same_bytes(self, config, tmp_path, num_tasks):
        planned(config, tmp_path / "tasks")
        for rank in reversed(range(num_tasks)):
            EncodeShare(config, tmp_path / "tasks")(None, rank, num_tasks)
        Finish(config, tmp_path / "tasks")(None, 0, 1)
        assert content(tmp_path / "tasks") == content(prepare(config, tmp_path / "here").path)

    def test_each_takes_every_nth_file(self, config, tmp_path):
        planned(config, tmp_path / "tasks")
        EncodeShare(config, tmp_path / "tasks")(None, 1, 4)
        assert sorted(path.stem for path in tmp_path.glob("tasks/work/finished/*")) == ["00001", "00005"]

    def test_a_share_that_is_missing_is_named(self, config, tmp_path, capsys):
        planned(config, tmp_path / "tasks")
        EncodeShare(config, tmp_path / "tasks")(None, 0, 2)
        with pytest.raises(SystemExit, match="1"):
            Finish(config, tmp_path / "tasks")(None, 0, 1)
        assert "3 of 6 input files were not encoded" in (err := capsys.readouterr().err)
        assert f"{tmp_path}/in/0.jsonl first: their tasks were killed or ran out of time" in err

    def test_bad_input_is_left_for_the_finish(self, config, tmp_path, capsys):
        planned(config, tmp_path / "tasks")
        path = tmp_path / "in" / "2.jsonl"
        stat = path.stat()
        path.write_bytes(b"{bad" + path.read_bytes()[4:])
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        for rank in range(2):
            EncodeShare(config, tmp_path / "tasks")(None, rank, 2)
        with pytest.raises(SystemExit, match="2"):
            Finish(config, tmp_path / "tasks")(None, 0, 1)
        assert f"doremi: {path}:1: not valid JSON" in capsys.readouterr().err

    @pytest.mark.parametrize("change", OTHER_FILES)
    def test_a_machine_that_sees_other_files_says_so(self, config, tmp_path, capsys, change):
        planned(config, tmp_path / "tasks")
        EncodeShare(config, tmp_path / "tasks")(None, 0, 2)
        name = OTHER_FILES[change](tmp_path / "in")
        EncodeShare(config, tmp_path / "tasks")(None, 1, 2)
        with pytest.raises(SystemExit, match="2"):
            Finish(config, tmp_path / "tasks")(None, 0, 1)
        said = capsys.readouterr().err
        assert f"sees other inputs ({tmp_path}/in/{name}) than the machine that planned; all of them need" in said
        assert len(list(tmp_path.glob("tasks/work/finished/*"))) == 3  # those of the first task

    def test_nothing_is_done_to_a_finished_store(self, config, tmp_path):
        prepare(config, tmp_path / "done")
        before = content(tmp_path / "done")
        EncodeShare(config, tmp_path / "done")(None, 0, 1)
        Finish(config, tmp_path / "done")(None, 0, 1)
        assert content(tmp_path / "done") == before

    def test_relative_paths_are_those_of_the_planner(self, config, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        content = config.model_dump()
        content["inputs"][0]["path"] = "in"
        relative = CorpusConfig.model_validate(content)
        planned(relative, Path("tasks"))
        step = EncodeShare(relative, Path("tasks"))
        monkeypatch.chdir("/")
        step(None, 0, 1)
        assert len(list(tmp_path.glob("tasks/work/finished/*"))) == 6
        assert Path.cwd() == Path("/")


class TestLock:
    """Alone while planning, together while encoding."""

    def test_tasks_join_in_once_it_is_shared(self, tmp_path):
        with locked(tmp_path) as lock:
            with pytest.raises(InputError, match=rf"being prepared by process {os.getpid()} on host"), joined(tmp_path):
                pass
            lock.share()
            with joined(tmp_path), joined(tmp_path):
                pass

    def test_another_preparation_does_not(self, tmp_path):
        with locked(tmp_path) as lock:
            lock.share()
            with pytest.raises(InputError, match=r"being prepared by process"), locked(tmp_path):
                pass
        with locked(tmp_path), pytest.raises(InputError, match="being prepared by"), joined(tmp_path):
            pass

    def test_a_task_alone_keeps_others_out(self, tmp_path):
        with locked(tmp_path):
            pass
        with joined(tmp_path), pytest.raises(InputError, match="being prepared by"), locked(tmp_path):
            pass


def test_a_forked_child_neither_keeps_the_lock_nor_outlives_its_holder(tmp_path):
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom doremi.corpus.storing.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    child = os.fork()\n    print(child, flush=True)\n    time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        child = max(int(holder.stdout.readline()), int(holder.stdout.readline()))  # the child prints 0
        assert not is_free(tmp_path)
        holder.kill()
    assert became(lambda: is_free(tmp_path))
    assert became(lambda: not is_running(child))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # of datatrove's manager
class TestEngines:
    """datatrove's executors for real."""

    @pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
    def engine(self, request, monkeypatch):
        pytest.importorskip("datatrove")
        from doremi.corpus.preparing import cluster

        if request.param == "local":
            return cluster.LocalTasks(3)
        pytest.importorskip("ray")
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        return cluster.RayTasks(3, gigabytes_per_cpu=0.1)

    @pytest.fixture
    def local(self):
        pytest.importorskip("datatrove")
        from doremi.corpus.preparing.cluster import LocalTasks

        return LocalTasks(2)

    # made an error in a thread of datatrove, it would have datatrove wait for ever
    @pytest.mark.filterwarnings("ignore:placement_group:DeprecationWarning")
    def test_the_same_bytes(self, engine, config, tmp_path):
        store = prepare(config, tmp_path / "tasks", encode_all=engine)
        assert content(store.path) == content(prepare(config, tmp_path / "here").path)

    def test_the_same_error_and_no_traceback(self, local, config, tmp_path, capfd):
        with (tmp_path / "in" / "3.jsonl").open("a") as file:
            file.write("{bad\n")
        with pytest.raises(InputError, match=r"3\.jsonl:201: not valid JSON.*; correct the record"):
            prepare(config, tmp_path / "tasks", encode_all=local)
        assert "Traceback" not in "".join(capfd.readouterr())

    def test_a_killed_task_is_reported_and_the_next_run_completes(self, local, with_reader, tmp_path):
        (tmp_path / "script.py").write_text("os.kill(os.getpid(), signal.SIGKILL)")
        with pytest.raises(RunFailedError, match="a worker process was killed"):
            prepare(with_reader, tmp_path / "out", encode_all=local)
        (tmp_path / "script.py").unlink()
        store = prepare(with_reader, tmp_path / "out", encode_all=local)
        assert content(store.path) == content(prepare(with_reader, tmp_path / "here").path)

    def test_what_is_finished_is_not_done_again(self, local, config, tmp_path):
        planned(config, tmp_path / "out")
        EncodeShare(config, tmp_path / "out")(None, 0, 2)
        kept = {path: path.stat().st_ino for path in tmp_path.glob("out/train/*/*.bin")}
        prepare(config, tmp_path / "out", encode_all=local)
        assert kept
        assert all(path.stat().st_ino == inode for path, inode in kept.items())

    @pytest.mark.skipif(sys.platform != "linux", reason="sends signals to processes found in /proc")
    def test_tasks_die_with_the_preparation(self, local, with_reader, tmp_path):
        """SIGKILL of the whole preparation: its tasks, which the kernel does not end, must not go on."""
        (tmp_path / "script.py").write_text(
            f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\ntime.sleep(100)"
        )
        script = (
            "import sys\nfrom doremi.corpus import prepare\nfrom doremi.corpus.preparing import work\n"
            "from doremi.corpus.preparing.cluster import LocalTasks\n"
            "work.UNIT_BYTES = 0\n"
            "from doremi.corpus.config import CorpusConfig\n"
            "prepare(CorpusConfig.model_validate_json(sys.argv[1]), sys.argv[2], encode_all=LocalTasks(2))\n"
        )
        command = [sys.executable, "-c", script, with_reader.model_dump_json(), str(tmp_path / "out")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as preparation:
            assert became(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
            with pytest.raises(InputError, match=rf"being prepared by process {preparation.pid} on host"):
                prepare(with_reader, tmp_path / "out")
            preparation.send_signal(signal.SIGKILL)
        assert became(lambda: not is_running(int((tmp_path / "pid").read_text())))
        (tmp_path / "script.py").unlink()
        assert became(lambda: is_free(tmp_path / "out"))
        assert became(lambda: not any(str(tmp_path / "out") in line for line in command_lines()))
        store = prepare(with_reader, tmp_path / "out")
        assert content(store.path) == content(prepare(with_reader, tmp_path / "here").path)


def became(condition) -> bool:
    """Whether something comes true within a minute."""
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.1)
    return False


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append(path.read_text())
    return found


def is_free(folder: Path) -> bool:
    try:
        with locked(folder):
            return True
    except InputError:
        return False


def test_without_datatrove(monkeypatch):
    from doremi.corpus.preparing import cluster

    monkeypatch.setitem(sys.modules, "datatrove", None)
    for engine in (cluster.LocalTasks, cluster.RayTasks):
        with pytest.raises(InputError, match=r"datatrove cannot be imported .*pip install 'doremi-mixture\[cluster\]'"):
            engine(2)


def test_an_orphan_ends_itself(monkeypatch):
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)
    ended = []
    parents = iter([7, 7, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(os, "_exit", ended.append)
    lock.die_with_parent(7)
    assert ended == [1]
