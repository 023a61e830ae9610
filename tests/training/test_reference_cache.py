"""The cache of reference losses: exact, never wrong after a kill, a torn write or a race, clear in what it refuses."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple

import numpy as np
import pytest

from doremi import files
from doremi.errors import InputError, RunFailedError
from doremi.training import reference_cache
from doremi.training.reference_cache import ReferenceCache

ROWS = {"a": 5, "b": 3, "c": 11}
KEY = {"reference": "r1", "corpus": "c1"}
LENGTH = 9


def open_cache(folder, **changes):
    return ReferenceCache.open(folder, **{"row_counts": ROWS, "sequence_length": LENGTH, "key": KEY} | changes)


def ids(*values):
    return np.array(values, np.int64)


def random_nats(num_rows, *, seed=0, num_targets=LENGTH - 1):
    nats = np.random.default_rng(seed).gamma(4, size=(num_rows, num_targets)).astype(np.float32)
    nats[:, 1] = 0.0  # a masked target
    nats[0, 2], nats[0, 3] = np.float32(1e-38), np.float32(3e38)
    return nats


def loss_of(domain, row, num_targets):
    """What a test writes as the losses of a row, worked out anew to check them."""
    return (np.arange(num_targets) * 0.37 + 100 * domain + row + 0.25).astype(np.float32)


def all_places(row_counts=ROWS):
    pairs = [(domain, row) for domain, count in enumerate(row_counts.values()) for row in range(count)]
    return tuple(np.array(pairs, np.int64).T)


# ---- values ----


def test_float32_comes_back_bit_for_bit_also_in_another_process_order_or_selection(tmp_path):
    domains, rows = all_places()
    nats = random_nats(len(rows))
    open_cache(tmp_path / "cache").write(domains, rows, nats)
    cache = open_cache(tmp_path / "cache")
    order = np.random.default_rng(1).permutation(len(rows))
    found = cache.read(domains[order], rows[order])
    assert found.is_there.all()
    np.testing.assert_array_equal(found.nats.view(np.uint32), nats[order].view(np.uint32))

    fewer = open_cache(tmp_path / "cache", row_counts={"c": 11, "a": 5})  # here domain 0 is c
    np.testing.assert_array_equal(fewer.read(ids(0, 1), ids(10, 4)).nats, nats[[18, 4]])


def test_float16_is_off_by_at_most_half_a_unit_in_the_last_place(tmp_path):
    nats = np.random.default_rng(0).gamma(4, size=(5, LENGTH - 1))
    cache = open_cache(tmp_path / "cache", dtype="float16")
    cache.write(ids(*[0] * 5), np.arange(5), nats)
    found = cache.read(ids(*[0] * 5), np.arange(5))
    assert found.is_there.all()
    assert found.nats.dtype == np.float32
    errors = np.abs(found.nats / nats - 1)
    assert 0 < errors.max() <= 2**-11
    assert (tmp_path / "cache" / "nats.bin").stat().st_size == sum(ROWS.values()) * LENGTH * 2


def test_what_was_not_written_is_nan_and_reported(tmp_path):
    cache = open_cache(tmp_path / "cache")
    cache.write(ids(2, 0), ids(4, 1), random_nats(2))
    found = cache.read(ids(0, 0, 2, 2, 1), ids(0, 1, 4, 5, 0))
    np.testing.assert_array_equal(found.is_there, [False, True, True, False, False])
    assert np.isnan(found.nats[~found.is_there]).all()
    assert cache.coverage() == {"a": 1 / 5, "b": 0.0, "c": 1 / 11}
    assert open_cache(tmp_path / "cache", row_counts={"c": 11}).coverage() == {"c": 1 / 11}


def test_rows_of_blocks_that_end_within_a_row_are_all_counted(tmp_path):
    """7,001 words a row: neither rows nor what is written of them end where the blocks of the file do."""
    cache = open_cache(tmp_path / "cache", row_counts={"a": 40, "b": 2000}, sequence_length=7001)
    written = ids(0, 1, 17, 18, 39)
    cache.write(ids(*[0] * 5), written, np.ones((5, 7000)))
    cache.write(ids(1, 1), ids(3, 1999), np.ones((2, 7000)))
    assert cache.coverage() == {"a": 5 / 40, "b": 2 / 2000}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_refused_and_nothing_of_the_call_is_stored(tmp_path, bad):
    cache, nats = open_cache(tmp_path / "cache"), random_nats(3)
    nats[1, 6] = bad
    with pytest.raises(RunFailedError, match=rf"domain 'c', row 7, target 6 is {bad}; stopped"):
        cache.write(ids(0, 2, 2), ids(0, 7, 8), nats)
    assert not cache.read(ids(0, 2, 2), ids(0, 7, 8)).is_there.any()


def test_a_loss_too_large_for_float16_is_refused(tmp_path):
    cache = open_cache(tmp_path / "cache", dtype="float16")
    nats = np.full((1, LENGTH - 1), 70_000.0)
    with pytest.raises(RunFailedError, match=r"domain 'b', row 2, target 0 is 70000, too large for float16"):
        cache.write(ids(1), ids(2), nats)
    assert not cache.read(ids(1), ids(2)).is_there.any()


@pytest.mark.parametrize(
    ("domain", "row", "message"),
    [
        (0, 5, "'a' has 5 rows, asked for row 5"),
        (1, -1, "'b' has 3 rows"),
        (3, 0, "numbered 0 to 2"),
        (-1, 0, "0 to 2"),
    ],
)
def test_a_row_that_does_not_exist_is_never_taken_from_the_next_domain(tmp_path, domain, row, message):
    cache = open_cache(tmp_path / "cache")
    with pytest.raises(IndexError, match=message):
        cache.read(ids(0, domain), ids(0, row))
    with pytest.raises(IndexError, match=message):
        cache.write(ids(0, domain), ids(0, row), random_nats(2))


def test_losses_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(1, 8\), got \(1, 9\)"):
        open_cache(tmp_path / "cache").write(ids(0), ids(0), random_nats(1, num_targets=LENGTH))


# ---- kills and torn writes ----


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_row_that_was_cut_short_or_has_a_gap_anywhere_is_not_there(tmp_path, dtype):
    whole, torn = open_cache(tmp_path / "whole", dtype=dtype), open_cache(tmp_path / "torn", dtype=dtype)
    nats = random_nats(1) if dtype == "float32" else random_nats(1).clip(0.0, 9.0)
    whole.write(ids(1), ids(0), nats)
    size = (2 if dtype == "float16" else 4) * LENGTH
    data = (tmp_path / "whole" / "nats.bin").read_bytes()[5 * size : 6 * size]
    word = size // LENGTH
    cut_short = [data[:end].ljust(size, b"\0") for end in range(0, size - word, word)]
    with_a_gap = [data[:at] + bytes(word) + data[at + word :] for at in range(0, size - word, word)]
    for content in cut_short + with_a_gap:
        with (tmp_path / "torn" / "nats.bin").open("r+b") as file:
            file.seek(5 * size)
            file.write(content)
        assert not torn.read(ids(1), ids(0)).is_there.any()
        assert torn.coverage()["b"] == 0
    torn.write(ids(1), ids(0), nats)
    np.testing.assert_array_equal(torn.read(ids(1), ids(0)).nats, whole.read(ids(1), ids(0)).nats)


WRITER = """
import sys
import numpy as np
from doremi.training.reference_cache import ReferenceCache
from tests.training.test_reference_cache import loss_of
folder, first, last, length = sys.argv[1], *map(int, sys.argv[2:])
cache = ReferenceCache.open(folder, row_counts={"a": 4000, "b": 4000}, sequence_length=length, key={"reference": "r"})
for row in range(first, last):
    domains = np.array([0, 1])
    cache.write(domains, np.array([row, row]), np.stack([loss_of(d, row, length - 1) for d in (0, 1)]))
assert "torch" not in sys.modules
"""


def start_writer(folder, first, last, length):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), *map(str, (first, last, length))])


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.005)


def check_rows(cache, length, num_rows):
    """How many of the first rows of both domains are there, after checking that those are exactly right."""
    num_there = 0
    for domain in (0, 1):
        for row in range(num_rows):
            found = cache.read(ids(domain), ids(row))
            if found.is_there[0]:
                np.testing.assert_array_equal(found.nats[0], loss_of(domain, row, length - 1))
                num_there += 1
    return num_there


def test_after_a_sigkill_every_row_is_absent_or_exactly_right(tmp_path):
    """Rows of 64 KiB, so that most of the writer's time is spent within a row."""
    length, rng, was_there = 1 << 14, np.random.default_rng(0), 0
    for _ in range(4):
        with start_writer(tmp_path / "cache", was_there // 2, 4000, length) as writer:
            wait_for(tmp_path / "cache" / "manifest.json")
            cache = ReferenceCache.open(
                tmp_path / "cache", row_counts={"a": 4000, "b": 4000}, sequence_length=length, key={"reference": "r"}
            )
            while not cache.read(ids(1), ids(was_there // 2)).is_there.all():
                assert writer.poll() is None
            time.sleep(float(rng.uniform(0, 0.03)))
            writer.send_signal(signal.SIGKILL)
        assert writer.returncode == -signal.SIGKILL
        is_there = check_rows(cache, length, was_there // 2 + 400)
        assert was_there < is_there
        was_there = is_there


def test_processes_that_make_and_write_one_cache_at_once_agree_also_while_it_is_read(tmp_path):
    length, num_rows = 300, 600
    writers = [start_writer(tmp_path / "cache", first, num_rows, length) for first in (0, 0, 200)]
    wait_for(tmp_path / "cache" / "manifest.json")
    cache = ReferenceCache.open(
        tmp_path / "cache", row_counts={"a": 4000, "b": 4000}, sequence_length=length, key={"reference": "r"}
    )
    while any(writer.poll() is None for writer in writers):
        check_rows(cache, length, num_rows)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert check_rows(cache, length, num_rows) == 2 * num_rows
    assert cache.coverage() == {"a": 600 / 4000, "b": 600 / 4000}
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def open_at_once(folder, keys):
    """What `ReferenceCache.open` gave or raised in threads that start together, one for each key."""
    barrier, outcomes = threading.Barrier(len(keys)), [None] * len(keys)

    def attempt(index):
        barrier.wait()
        try:
            outcomes[index] = open_cache(folder, key=keys[index])
        except InputError as error:
            outcomes[index] = error

    threads = [threading.Thread(target=attempt, args=(index,)) for index in range(len(keys))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_a_race_to_make_the_cache_has_one_winner_and_nobody_writes_to_a_file_that_is_gone(tmp_path):
    for attempt in range(20):
        caches = open_at_once(tmp_path / f"{attempt}" / "cache", [KEY] * 6)
        for domain, cache in enumerate(caches[:3]):
            cache.write(ids(domain), ids(1), random_nats(1, seed=domain))
        for cache in caches:
            assert cache.read(ids(0, 1, 2), ids(1, 1, 1)).is_there.all()


def test_a_race_of_two_references_is_won_by_one_and_refused_to_the_other(tmp_path):
    for attempt in range(20):
        outcomes = open_at_once(tmp_path / f"{attempt}", [KEY, KEY | {"reference": "r2"}] * 2)
        winner = files.read_json(tmp_path / f"{attempt}" / "manifest.json")["key"]["reference"]
        losers = outcomes[1::2] if winner == "r1" else outcomes[0::2]
        assert all(isinstance(error, InputError) and "key reference" in str(error) for error in losers)
        assert sum(isinstance(outcome, ReferenceCache) for outcome in outcomes) == 2


# ---- what is refused ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": KEY | {"reference": "r2"}}, "have key reference 'r1', this run has 'r2'; delete that folder"),
        ({"key": {"reference": "r1"}}, "have key corpus 'c1', this run has None"),
        ({"key": KEY | {"tokenizer": "t"}}, "have key tokenizer None, this run has 't'"),
        ({"sequence_length": 10}, "have sequence_length 9, this run has 10; delete that folder"),
        ({"dtype": "float16"}, "have dtype 'float32', this run has 'float16'; delete that folder"),
        ({"row_counts": ROWS | {"b": 4}}, "have rows of domain 'b': 3, this run has 4; delete that folder"),
        ({"row_counts": ROWS | {"d": 4}}, "have rows of domain 'd': None, this run has 4; delete that folder"),
    ],
)
def test_a_cache_of_something_else_is_refused(tmp_path, changes, message):
    open_cache(tmp_path / "cache").write(ids(0), ids(0), random_nats(1))
    with pytest.raises(InputError, match=f"{tmp_path / 'cache'}: the cached reference losses {message}"):
        open_cache(tmp_path / "cache", **changes)
    assert open_cache(tmp_path / "cache").read(ids(0), ids(0)).is_there.all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'; it must be one of float32, float16"),
        ({"sequence_length": 1}, "19 rows of 1 tokens have no losses"),
        ({"row_counts": {"a": 0}}, "0 rows of 9 tokens have no losses"),
    ],
)
def test_losses_without_a_shape_or_dtype_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        open_cache(tmp_path / "cache", **changes)
    assert not (tmp_path / "cache").exists()


def test_a_folder_of_other_files_or_a_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "other").mkdir()
    files.write_json(tmp_path / "other" / "manifest.json", {"format": "something"})
    for name in ("full", "file", "other"):
        with pytest.raises(InputError, match=rf"{name}: has no manifest of a reference cache .*; name an empty folder"):
            open_cache(tmp_path / name)
    assert (tmp_path / "full" / "thesis.tex").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "other"]


def test_a_link_to_an_empty_folder_serves(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "scratch")
    open_cache(tmp_path / "cache").write(ids(0), ids(0), random_nats(1))
    assert (tmp_path / "scratch" / "nats.bin").is_file()
    assert open_cache(tmp_path / "cache").coverage()["a"] == 1 / 5


def test_a_file_cut_short_or_gone_is_refused(tmp_path):
    open_cache(tmp_path / "cache")
    os.truncate(tmp_path / "cache" / "nats.bin", 100)
    with pytest.raises(InputError, match=r"100 bytes instead of 19 rows × 36: it was cut short.*delete .*cache and"):
        open_cache(tmp_path / "cache")
    (tmp_path / "cache" / "nats.bin").unlink()
    with pytest.raises(InputError, match="0 bytes instead of"):
        open_cache(tmp_path / "cache")


def test_hostile_domain_names_stay_in_the_manifest(tmp_path):
    names = ("../../outside", "/etc/passwd", "a\0b", "", "..", "Größe 漢字 \U0001f600", "x" * 5000, '"}\n')
    row_counts = dict.fromkeys(names, 2)
    cache = open_cache(tmp_path / "deep" / "cache", row_counts=row_counts)
    domains, rows = all_places(row_counts)
    nats = random_nats(len(rows))
    cache.write(domains, rows, nats)
    again = open_cache(tmp_path / "deep" / "cache", row_counts=row_counts)
    np.testing.assert_array_equal(again.read(domains, rows).nats, nats)
    assert again.coverage() == dict.fromkeys(names, 1.0)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "deep",
        "deep/cache",
        "deep/cache/manifest.json",
        "deep/cache/nats.bin",
    ]


# ---- space ----


def test_a_cache_larger_than_memory_takes_no_space_until_it_is_written_nor_when_it_is_read(tmp_path):
    row_counts, length = {"pile": 10**9, "small": 3}, 1024  # 4.1 TB
    cache = open_cache(tmp_path / "cache", row_counts=row_counts, sequence_length=length, max_new_rows=1000)
    stored = tmp_path / "cache" / "nats.bin"
    assert stored.stat().st_size == (10**9 + 3) * 4096
    assert stored.stat().st_blocks == 0
    assert cache.coverage() == {"pile": 0.0, "small": 0.0}
    nats = random_nats(2, num_targets=length - 1)
    cache.write(ids(0, 1), ids(10**9 - 1, 2), nats)
    spread = np.linspace(0, 10**9 - 2, 500).astype(np.int64)
    assert not cache.read(np.zeros(500, np.int64), spread).is_there.any()
    np.testing.assert_array_equal(cache.read(ids(0, 1), ids(10**9 - 1, 2)).nats, nats)
    assert cache.coverage() == {"pile": 1e-9, "small": 1 / 3}
    assert stored.stat().st_blocks * 512 <= 4 * 4096


def disk_with(monkeypatch, free):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 0, free))


def test_too_little_free_space_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    row_counts = {"a": 10**6, "b": 10**6}
    disk_with(monkeypatch, 7.9e9)
    with pytest.raises(
        InputError, match=r"may take 8.2 GB, 7.9 GB are free. Store them as float16 \(half of it\), use"
    ):
        open_cache(tmp_path / "cache", row_counts=row_counts, sequence_length=1024)
    assert not (tmp_path / "cache").exists()
    open_cache(tmp_path / "half", row_counts=row_counts, sequence_length=1024, dtype="float16")
    open_cache(tmp_path / "few", row_counts=row_counts, sequence_length=1024, max_new_rows=10**6)
    disk_with(monkeypatch, 4095)  # a row of 36 bytes may take a block of its own
    with pytest.raises(InputError, match="float16"):
        open_cache(tmp_path / "block", row_counts={"a": 1000}, max_new_rows=1)


def test_that_a_cache_is_of_something_else_is_said_before_that_the_disk_is_full(tmp_path, monkeypatch):
    open_cache(tmp_path / "cache")
    disk_with(monkeypatch, 0)
    with pytest.raises(InputError, match="have key reference 'r1'"):
        open_cache(tmp_path / "cache", key={"reference": "r2"})


def test_what_is_stored_already_needs_no_more_space(tmp_path, monkeypatch):
    row_counts = {"a": 300}
    cache = open_cache(tmp_path / "cache", row_counts=row_counts, sequence_length=1024)
    cache.write(np.zeros(300, np.int64), np.arange(300), random_nats(300, num_targets=1023))
    disk_with(monkeypatch, 0)
    assert open_cache(tmp_path / "cache", row_counts=row_counts, sequence_length=1024).coverage() == {"a": 1.0}


def test_a_disk_that_fills_up_within_a_row_is_an_error_that_leaves_the_row_absent(tmp_path, monkeypatch):
    cache = open_cache(tmp_path / "cache")
    calls, pwrite = [], os.pwrite

    def filling_up(descriptor, data, offset):
        calls.append(len(data))
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data[:20], offset)  # a short write, as the system may make

    monkeypatch.setattr(os, "pwrite", filling_up)
    with pytest.raises(InputError, match=r"cache: no room for the reference's losses: No space left .*what was stored"):
        cache.write(ids(0, 0), ids(1, 2), random_nats(2))
    assert calls == [36, 16, 36]  # eight values and the checksum
    monkeypatch.undo()
    np.testing.assert_array_equal(cache.read(ids(0, 0), ids(1, 2)).is_there, [True, False])


def test_a_file_system_that_cannot_hold_so_large_a_file_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(reference_cache, "_check_free_space", lambda *_: None)
    with pytest.raises(InputError, match="no room for the reference's losses: File too large"):
        open_cache(tmp_path / "cache", row_counts={"a": 1 << 50}, sequence_length=1024)
    assert list(tmp_path.iterdir()) == []
