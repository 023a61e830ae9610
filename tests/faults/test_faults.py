"""A full disk, a failing one and a kill at any call that changes a file: the same command ends as if nothing had been.

Of a run with a cached reference, two proxies, held-out losses and a report. What fails is one line, exit code 1 (a
preparation without room: 2); afterwards not a byte differs but for times, and no file is left over.
"""

from __future__ import annotations

import shutil
import sys

import pytest

from tests.faults.campaign import Campaign, wrong_end

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="preloads a library, as Linux does"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here, which makes the library that injects faults"),
]
NUM_POINTS = 100


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    campaign = Campaign(tmp_path_factory.mktemp("faults"))
    yield campaign
    campaign.close()


@pytest.mark.slow
def test_a_few_points(campaign):
    """One that is killed in a marker, one that meets an error in the answer, one without room for a table."""
    marker = campaign.find("write /runs/reference-\\w+/.complete.json", mode="torn")
    answer = campaign.find("rename /weights.json", mode="i/o error from now on")
    losses = campaign.find("write /runs/uniform-\\w+/.held_out.parquet", mode="no room")
    problems = {point: campaign.check(point) for point in (marker, answer, losses)}
    assert not {point: problem for point, problem in problems.items() if problem}


def test_calls_of_every_kind_are_counted_and_always_as_many(campaign):
    assert {call.split()[0] for call in campaign.calls} == {
        "open",
        "write",
        "fsync",
        "truncate",
        "rename",
        "mkdir",
        "unlink",
    }
    for name in ("training_args.bin", "started.json", "held_out.parquet", "nats.bin", "weights.json", "manifest.json"):
        assert any(name in call for call in campaign.calls), name


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_points(campaign):
    problems = {point: campaign.check(point) for point in campaign.points(NUM_POINTS)}
    assert not {point: problem for point, problem in problems.items() if problem}


def test_the_check_finds_what_is_left_over_what_is_missing_and_what_differs(campaign):
    assert campaign.differences(campaign.undisturbed) == []
    found = campaign.undisturbed | {".weights.json.7.partial": b"", "weights.json": {}}
    del found["report.md"]
    assert campaign.differences(found) == [".weights.json.7.partial", "report.md", "weights.json"]
    for output in ("doremi: the run failed: x\nTraceback (most recent call last)", "OSError: x", ""):
        assert wrong_end({"code": 1, "output": output}, "i/o error")
    assert wrong_end({"code": 0, "output": ""}, "killed")
    assert not wrong_end({"code": 1, "output": "bar\rdoremi: the run failed: no room"}, "no room")
