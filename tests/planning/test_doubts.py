"""Every doubt is raised by what it is about, and by nothing short of it."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from doremi.planning import doubts
from doremi.planning.disk import Disk
from doremi.planning.memory import Memory
from tests.planning.recipes import make, planned, size
from tests.planning.test_stages import Store


def test_repetition():
    recipe = make(training={"max_epochs": 3.9})
    found = list(doubts.repetition(recipe, [*planned(recipe, store=Store()).values()]))
    assert found == [
        "proxy: beyond 3.9 epochs of small 4.0. Lower their weight, add text, train for fewer steps, or set "
        "training.on_max_epochs: renormalise"
    ]
    for settings in ({"max_epochs": 4}, {"max_epochs": 3.9, "on_max_epochs": "renormalise"}):
        recipe = make(training=settings)
        assert not list(doubts.repetition(recipe, [*planned(recipe, store=Store()).values()]))
    strict = make(training={"max_epochs": 3.9, "on_max_epochs": "error"})
    [only] = doubts.repetition(strict, [*planned(strict, store=Store()).values()])
    assert "the run will stop there" in only
    assert not list(doubts.repetition(recipe, [*planned(recipe).values()]))  # nothing is known of the domains


def test_names_of_domains_do_no_harm_and_are_counted():
    recipe = make()
    stage = planned(recipe)["doremi"]
    epochs = {f"\x1b[2J{i}": 5.0 + i for i in range(8)}
    [only] = doubts.repetition(recipe, [replace(stage, epochs=epochs)])
    assert "\x1b" not in only
    assert only.startswith("doremi: beyond 4 epochs of ")
    assert re.search(r"7 12\.0, .* and 3 more\. Lower", only)


def test_batch():
    assert not list(of_batch(make(), 8))
    assert not list(of_batch(make(methods=["natural", "uniform"]), 9))  # nothing is measured by domain
    [refused] = of_batch(make(), 9)
    assert (
        "a batch of 8 rows for 9 domains; the proxy will be refused. Raise training.global_batch_size to 9" in refused
    )
    for settings in ({"doremi": {"allow_absent_domains": True}}, {"training": {"sampling": "iid"}}):
        [noisy] = of_batch(make(**settings), 9)
        assert "absent from a batch" in noisy


def of_batch(recipe, num_domains):
    return doubts.batch(recipe, [*planned(recipe).values()], num_domains)


def of_proxy(parameters, tokens, main_parameters, **sections):
    recipe = make(**({"training": {"steps": 5000}} | sections))
    stages = planned(recipe)
    proxy = replace(stages["proxy"], size=size(parameters), num_tokens=tokens)
    main = replace(stages["natural"], size=size(main_parameters))
    return list(doubts.proxy_size(recipe, [proxy, main]))


def test_sizes_of_the_paper_raise_none():
    tokens = 200_000 * 512 * 1024
    for parameters in (67_895_808, 281_664_000):  # 70M and 280M, with their vocabulary
        assert of_proxy(parameters, tokens, 9_640_484_864) == []


def test_proxy():
    assert of_proxy(1000, 20_000, 1000) == []
    [short] = of_proxy(1000, 19_000, 1000)
    assert "19.0 tokens a parameter, below 20 (Hoffmann et al. 2022)" in short
    assert "Train it for 5,263 steps" in short
    [small] = of_proxy(1000, 1_600_000, 1000)
    assert "1,600 tokens a parameter; the smallest proxy of the paper had 1,550" in small
    [far] = of_proxy(1000, 20_000, 150_000)
    assert "150 times as many parameters" in far


@pytest.mark.parametrize(("steps", "smoothing", "number"), [(1000, 1e-3, 0), (999, 1e-3, 1), (99, 1e-2, 1), (9, 0, 0)])
def test_updates(steps, smoothing, number):
    found = of_proxy(1000, 20_000, 1000, training={"steps": steps}, doremi={"smoothing": smoothing})
    assert len(found) == number
    assert all("updates of the weights; with smoothing" in doubt for doubt in found)


def test_memory_of_the_device():
    memories = {"proxy": Memory(30e9, 10e9, 20e9, 10e9, 1e9), "main": Memory(72.1e9, 0, 0, 0, 0)}
    [only] = doubts.memory(memories, device_gb=80, device="h100-sxm")
    assert only.startswith("main: needs about 72 GB on each device, a h100-sxm has 80. Lower training.overrides.main")


def test_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(doubts.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert not list(doubts.disk(Disk(None, 600, 400, 0), tmp_path / "new"))
    [only] = doubts.disk(Disk(1, 600, 400, 0), tmp_path / "new")
    assert "training.save_total_limit" in only
    (tmp_path / "there").write_bytes(bytes(500))
    assert not list(doubts.disk(Disk(1, 600, 400, 400), tmp_path))  # 500 of 1401 are there already
