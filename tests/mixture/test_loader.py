"""The loader: what a batch holds, slices of ranks, states between and within batches, reading ahead."""

from __future__ import annotations

import itertools
import json
import math
import threading

import numpy as np
import pytest
import torch

from doremi.errors import InputError, RunFailedError
from doremi.mixture import MixtureLoader, MixtureSchedule, RepetitionLimit
from doremi.mixture.gather import document_positions
from tests.mixture.memory_store import EOS, MemoryStore, origins

COUNTS = {"web": 300, "code": 40, "tiny": 7}
WEIGHTS = {"web": 6, "code": 3, "tiny": 1}
UNLIMITED = RepetitionLimit(math.inf)


def make_loader(
    *, world_size=1, rank=0, micro_batch_size=4, global_batch_size=24, sequence_length=12, seed=0, store=None,
    counts=COUNTS, weights=WEIGHTS, repetition=UNLIMITED, **settings,
):  # fmt: skip
    schedule = MixtureSchedule(
        counts, weights=weights, global_batch_size=global_batch_size, seed=seed, repetition=repetition
    )
    return MixtureLoader(
        store or MemoryStore(counts), schedule, sequence_length=sequence_length, micro_batch_size=micro_batch_size,
        rank=rank, world_size=world_size, **settings,
    )  # fmt: skip


def take(loader, num_micro_batches):
    return list(itertools.islice(loader, num_micro_batches))


def expected_pairs(num_batches, *, global_batch_size=24):
    """(domain, row) of the global batches one after the other, from a schedule of its own."""
    schedule = MixtureSchedule(COUNTS, weights=WEIGHTS, global_batch_size=global_batch_size, seed=0)
    return [
        pair
        for _ in range(num_batches)
        for pair in zip(*(array.tolist() for array in schedule.next_batch()), strict=True)
    ]


def test_a_micro_batch_holds_the_rows_that_the_schedule_says():
    batches = take(make_loader(), 12)
    assert [pair for batch in batches for pair in origins(batch)] == expected_pairs(2)
    for batch in batches:
        assert set(batch) == {"input_ids", "labels", "domain_ids", "rows"}
        assert {name: (t.dtype, tuple(t.shape)) for name, t in batch.items()} == {
            "input_ids": (torch.int64, (4, 12)), "labels": (torch.int64, (4, 12)), "domain_ids": (torch.int64, (4,)),
            "rows": (torch.int64, (4,)),
        }  # fmt: skip
        assert list(zip(batch["domain_ids"].tolist(), batch["rows"].tolist(), strict=True)) == origins(batch)
        assert torch.equal(batch["labels"], batch["input_ids"])
        first = batch["input_ids"][:, :1]
        assert torch.equal(batch["input_ids"], first + torch.arange(12) % 10)


def test_padding_is_masked_and_not_a_target():
    lengths = {("tiny", row): 5 for row in range(7)} | {("code", 3): 11}
    loader = make_loader(micro_batch_size=24, store=MemoryStore(COUNTS, lengths=lengths))
    batch = next(iter(loader))
    for i, (domain, row) in enumerate(origins(batch)):
        length = lengths.get((list(COUNTS)[domain], row), 12)
        assert batch["attention_mask"][i].tolist() == [1] * length + [0] * (12 - length)
        assert batch["labels"][i].tolist() == batch["input_ids"][i, :length].tolist() + [-100] * (12 - length)
        assert batch["input_ids"][i, length:].tolist() == [EOS] * (12 - length)
    assert batch["attention_mask"].dtype == torch.int64
    assert 0 in batch["attention_mask"]


def test_positions_restart_at_every_eos():
    tokens = np.array([[5, 6, EOS, 7, 8, 9], [EOS, 5, EOS, EOS, 6, 7], [5, 5, 5, 5, 5, EOS]], np.uint16)
    assert document_positions(tokens, eos_token_id=EOS).tolist() == [
        [0, 1, 0, 1, 2, 3],
        [0, 1, 0, 0, 1, 2],
        [0, 1, 2, 3, 4, 0],
    ]
    lengths = {("web", row): 9 for row in range(300)}  # here the EOS that stands for padding
    batch = next(iter(make_loader(documents="separate", store=MemoryStore(COUNTS, lengths=lengths))))
    web = batch["domain_ids"] == 0
    assert batch["position_ids"][web].tolist() == [[*range(9), 0, 0, 0]] * int(web.sum())
    assert batch["position_ids"].dtype == torch.int64
    assert "position_ids" not in next(iter(make_loader()))


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_slices_of_ranks_are_disjoint_and_make_up_the_global_batch(world_size):
    loaders = [make_loader(world_size=world_size, rank=rank, micro_batch_size=2) for rank in range(world_size)]
    num_micro_steps = 24 // (2 * world_size)
    streams = [[origins(batch) for batch in take(loader, 3 * num_micro_steps)] for loader in loaders]
    in_order = [pair for micro_step in zip(*streams, strict=True) for rank in micro_step for pair in rank]
    assert in_order == expected_pairs(3)
    assert all(loader.state_dict() == loaders[0].state_dict() for loader in loaders)


def test_a_state_says_what_the_caller_consumed():
    loader, stream = make_loader(), iter(make_loader())
    assert loader.state_dict()["schedule"]["step"] == 0
    micro_batches = iter(loader)
    for num_taken in range(1, 19):
        assert origins(next(micro_batches)) == origins(next(stream))
        state = loader.state_dict()
        assert state["schedule"]["step"] == num_taken // 6
        assert state["rows_taken"] == num_taken % 6 * 4


@pytest.mark.parametrize("reading", ["on_demand", "ahead"])
def test_resume_within_a_global_batch_with_weights_set_meanwhile(reading):
    """3 of 6 micro-batches taken, then new weights: the other 3 are still of the old plan."""
    loader = make_loader(reading=reading)
    take(loader, 9)
    loader.set_weights({"code": 1})
    state = json.loads(json.dumps(loader.state_dict()))
    rest = [origins(batch) for batch in take(loader, 9)]
    assert {domain for batch in rest[3:] for domain, _ in batch} == {1}
    assert {domain for batch in rest[:3] for domain, _ in batch} > {1}
    resumed = make_loader(reading=reading)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert [origins(batch) for batch in take(resumed, 9)] == rest
    pairs = [pair for batch in rest for pair in batch]
    other = make_loader(micro_batch_size=6, reading=reading)
    other.load_state_dict(state)
    assert [pair for batch in take(other, 6) for pair in origins(batch)] == pairs
    with pytest.raises(InputError, match=r"after 12 of its rows, and a micro-step has 1 × 8: .* divides 12"):
        make_loader(micro_batch_size=8).load_state_dict(state)
    with pytest.raises(InputError, match="after 12 of its rows; a change can only be accepted between global batches"):
        make_loader(seed=1).load_state_dict(state, accept=["seed"])


def test_elastic_resume_over_ten_epochs_is_bit_exact():
    """50 interruptions at random, each going on with other ranks and micro-batches; new weights at every step."""
    counts, rng = {"web": 400, "code": 90, "tiny": 60}, np.random.default_rng(3)
    num_steps = 60
    weights = [dict(zip(counts, rng.dirichlet([4, 2, 2]) + 1e-6, strict=True)) for _ in range(num_steps)]
    reference = MixtureSchedule(counts, weights=weights[0], global_batch_size=48, seed=5, repetition=UNLIMITED)
    expected = []
    for step in range(num_steps):
        reference.set_weights(weights[step])
        expected.append(list(zip(*(array.tolist() for array in reference.next_batch()), strict=True)))
    assert reference.epochs_seen["tiny"] >= 10

    interruptions = set(rng.choice(np.arange(1, num_steps), 50, replace=False).tolist())
    state, loaders, drawn = None, [], []
    for step in range(num_steps):
        if not loaders or step in interruptions:
            state = json.loads(json.dumps(loaders[0].state_dict())) if loaders else None
            world_size = int(rng.choice([1, 2, 3, 4, 8]))
            micro = int(rng.choice([d for d in range(1, 49) if 48 // world_size % d == 0]))
            reading = str(rng.choice(["on_demand", "ahead"]))
            loaders = [
                make_loader(world_size=world_size, rank=rank, micro_batch_size=micro, global_batch_size=48, seed=5,
                            counts=counts, weights={"web": 1}, reading=reading)
                for rank in range(world_size)
            ]  # fmt: skip
            for loader in loaders:
                if state is not None:
                    loader.load_state_dict(state)
        for loader in loaders:
            loader.set_weights(weights[step])
        streams = [take(loader, 48 // (world_size * micro)) for loader in loaders]
        drawn.append([pair for micro_step in zip(*streams, strict=True) for b in micro_step for pair in origins(b)])
    assert drawn == expected


def test_iterating_again_goes_on():
    loader = make_loader()
    first = next(iter(loader))
    assert [p for b in [first, *take(loader, 5)] for p in origins(b)] == expected_pairs(1)


# ---- reading ahead ----


class BlockingStore(MemoryStore):
    """Counts rows, and says which thread read them."""

    def __init__(self, counts):
        super().__init__(counts)
        self.threads, self.num_on_demand = [], 0

    def rows(self, name, indices, sequence_length):
        self.threads.append(threading.current_thread().name)
        self.num_on_demand += 0 if self.threads[-1].startswith("doremi-read-ahead") else len(indices)
        return super().rows(name, indices, sequence_length)


def test_the_next_batch_is_read_in_the_background_and_new_weights_still_apply_at_once():
    store, plain = BlockingStore(COUNTS), make_loader()
    loader = make_loader(store=store, reading="ahead")
    for step in range(6):
        if step in (3, 4):  # the batch read ahead is then the wrong one
            for each in (loader, plain):
                each.set_weights({"web": step, "tiny": 1})
        assert [origins(b) for b in take(loader, 6)] == [origins(b) for b in take(plain, 6)]
        assert loader.state_dict() == plain.state_dict()
    on_demand = [name for name in store.threads if not name.startswith("doremi-read-ahead")]
    # one call a domain: the first batch, and after new weights what was not read ahead, which with 4 : 1 in place of
    # 3 : 1 is no row of tiny
    assert len(on_demand) == 3 + 2 + 1


def test_of_a_batch_planned_again_only_the_rows_that_were_not_read_ahead_are_read():
    """New weights at every step: the stream is that of a loader that never reads ahead, and few rows are read twice."""
    weights = [dict(zip(COUNTS, w, strict=True)) for w in np.random.default_rng(1).dirichlet([40, 20, 4], size=20)]
    store, plain = BlockingStore(COUNTS), make_loader()
    loader = make_loader(store=store, reading="ahead")
    for each in weights:
        loader.set_weights(each)
        plain.set_weights(each)
        batches = take(loader, 6)
        assert [origins(b) for b in batches] == [origins(b) for b in take(plain, 6)]
        for batch in batches:
            assert origins(batch) == list(zip(batch["domain_ids"].tolist(), batch["rows"].tolist(), strict=True))
        assert loader.state_dict() == plain.state_dict()
    assert 24 < store.num_on_demand < 24 + 19 * 24 / 4


def test_a_loader_that_goes_back_takes_from_what_it_read_ahead_only_what_it_needs():
    loader, plain = make_loader(reading="ahead"), make_loader()
    take(loader, 6)
    state = loader.state_dict()
    take(loader, 18)
    loader.load_state_dict(state)
    take(plain, 6)
    assert [origins(b) for b in take(loader, 18)] == [origins(b) for b in take(plain, 18)]


def test_an_error_of_the_read_ahead_is_raised_when_its_batch_is_due():
    """tiny has 7 rows, of which a batch takes 2.4: the fourth would repeat one."""
    loader = make_loader(reading="ahead", repetition=RepetitionLimit(1, "error"), micro_batch_size=24)
    take(loader, 3)
    state = loader.state_dict()
    with pytest.raises(RunFailedError, match="stopped before step 4: domain 'tiny'"):
        next(iter(loader))
    assert loader.state_dict() == state
    loader.set_weights({"web": 1})
    assert {domain for domain, _ in origins(next(iter(loader)))} == {0}


# ---- errors ----


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"global_batch_size": 50, "world_size": 4, "micro_batch_size": 3},
            r"50 is not a multiple of world size 4 × micro-batch 3 = 12; the nearest that is: 48 and 60",
        ),
        ({"global_batch_size": 4, "micro_batch_size": 5}, "4 is not a multiple .* = 5; the nearest that is: 5"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"micro_batch_size": 0}, "micro-batch 0"),
        ({"documents": "apart"}, "documents is 'apart'; it must be one of 'joined', 'separate'"),
        ({"reading": "now"}, "reading is 'now'; it must be one of 'on_demand', 'ahead'"),
        ({"store": MemoryStore({**COUNTS, "code": 41})}, "'code' has 41 rows of 12 tokens in the store, but 40 in the"),
    ],
)
def test_refuses(sizes, message):
    with pytest.raises(InputError, match=message):
        make_loader(**sizes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence_length": 6}, "sequence_length was 12 and is now 6"),
        ({"store": MemoryStore(COUNTS, digest="corpus-2")}, "corpus was 'corpus-1' and is now 'corpus-2'"),
        ({"store": MemoryStore(COUNTS, tokenizer_digest="t")}, "tokenizer was 'tokenizer-1' and is now 't'"),
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"global_batch_size": 48}, "global_batch_size was 24 and is now 48"),
    ],
)
def test_resume_refuses_other_data_naming_both_values_unless_accepted(changes, message):
    loader = make_loader()
    take(loader, 12)
    state = json.loads(json.dumps(loader.state_dict()))
    other = make_loader(**changes)
    with pytest.raises(InputError, match=message):
        other.load_state_dict(state)
    assert other.state_dict()["schedule"]["step"] == 0
    other.load_state_dict(state, accept=[message.split()[0]])
    assert other.state_dict()["schedule"]["step"] == 2
    assert len(take(other, 1)) == 1


def test_resume_on_an_accepted_corpus_of_other_sizes():
    loader = make_loader()
    take(loader, 6)
    counts = {**COUNTS, "new": 10}
    other = make_loader(counts=counts, store=MemoryStore(counts, digest="corpus-2"))
    other.load_state_dict(loader.state_dict(), accept=["corpus"])
    assert sum(other.delivered.values()) == 24
    with pytest.raises(InputError, match="it has only step"):
        other.load_state_dict({"step": 3})


def test_worker_processes_are_refused(monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.worker._worker_info", object())  # as in a worker
    with pytest.raises(InputError, match="takes no worker processes: set num_workers=0"):
        next(iter(make_loader()))


def test_inside_a_plain_dataloader():
    batches = itertools.islice(torch.utils.data.DataLoader(make_loader(), batch_size=None), 6)
    assert [p for batch in batches for p in origins(batch)] == expected_pairs(1)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 on torch 2.13
def test_inside_a_stateful_dataloader():
    from torchdata.stateful_dataloader import StatefulDataLoader as stateful

    dataloader = stateful(make_loader(), batch_size=None, num_workers=0)
    seen = [p for batch in itertools.islice(dataloader, 8) for p in origins(batch)]
    resumed = stateful(make_loader(), batch_size=None, num_workers=0)
    resumed.load_state_dict(dataloader.state_dict())
    assert seen + [p for batch in itertools.islice(resumed, 10) for p in origins(batch)] == expected_pairs(3)
