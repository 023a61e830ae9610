"""Faults at chosen points of a small run: what the command says, and whether the same command ends alike afterwards."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.end_to_end.conftest import write_corpus, write_recipe
from tests.processes import ROOT, environment

SOURCE = Path(__file__).with_name("shim.c")
MODES = ("no room", "i/o error", "no room from now on", "i/o error from now on", "killed", "torn")
TIMES = {"train_seconds", "train_runtime", "train_samples_per_second", "train_steps_per_second", "command"}
WITH_TIMES = {"history.json", "report.html", "report.md"}  # their digests, in markers, differ too
FAILED, REFUSED = 1, 2


@dataclass(frozen=True)
class Point:
    """The number of a call that changes a file, and what becomes of it."""

    number: int
    call: str  # kind and path, for messages
    mode: str


class Campaign:
    """A run that is undisturbed, and others like it with a fault each."""

    def __init__(self, folder, *, steps=4):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        write_corpus(folder)
        self.recipe = write_recipe(folder, steps=steps, eval_steps=2, save_steps=2, logging_steps=2)
        content = yaml.safe_load(self.recipe.read_text())
        content["methods"] = ["natural", "uniform", {"doremi": {"reference_cache": True, "seeds": 2}}]
        self.recipe.write_text(yaml.safe_dump(content))
        shim = folder / "shim.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", shim, SOURCE, "-ldl"], check=True)
        self._driver = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment() | {"LD_PRELOAD": str(shim)},
        )
        done = self.run(folder / "undisturbed", mode="count", log=str(folder / "calls"))
        assert done["code"] == 0, done["output"]
        self.calls = (folder / "calls").read_text().splitlines()
        self.undisturbed = tree(folder / "undisturbed")

    def close(self):
        self._driver.stdin.close()
        assert self._driver.wait() == 0
        self._driver.stdout.close()

    def run(self, out, *, number=0, mode="off", log=None):
        arguments = ["run", str(self.recipe), "--out", str(out)]
        command = {"arguments": arguments, "folder": str(out), "number": number, "mode": mode, "log": log}
        print(json.dumps(command), file=self._driver.stdin, flush=True)
        return json.loads(self._driver.stdout.readline())

    def points(self, number, *, seed=0):
        """So many points at random: every class of calls before a second one of any."""
        rng = random.Random(seed)
        classes = {}
        for index, call in enumerate(self.calls, start=1):
            classes.setdefault(re.sub(r"\d+", "0", call), []).append(index)
        order = rng.sample(sorted(classes), k=len(classes))
        order += rng.choices(sorted(classes), k=max(number - len(order), 0))
        chosen = [rng.choice(classes[name]) for name in order[:number]]
        modes = [MODES[index % len(MODES)] for index in range(number)]
        rng.shuffle(modes)
        return [
            Point(index, self.calls[index - 1].replace(str(self.folder / "undisturbed"), ""), mode)
            for index, mode in zip(chosen, modes, strict=True)
        ]

    def find(self, beginning, *, mode):
        """The first call whose kind and path below the run directory begin so; the path is a regular expression."""
        kind, path = beginning.split()
        wanted = re.compile(rf"{kind} {re.escape(str(self.folder))}/undisturbed{path}")
        number = next(index for index, call in enumerate(self.calls, start=1) if wanted.match(call))
        return Point(number, beginning, mode)

    def check(self, point):
        """What is wrong with how a fault is met; None: nothing."""
        out = self.folder / "disturbed"
        first = self.run(out, number=point.number, mode=point.mode)
        if problem := wrong_end(first, point.mode):
            shutil.rmtree(out, ignore_errors=True)
            return f"{problem}: {first['output'][-700:]}"
        second = self.run(out)
        found = tree(out)
        shutil.rmtree(out)
        if second["code"] != 0:
            return (
                f"does not continue ({second['code']}): {second['output'][-700:]}\n--- before: {first['output'][-800:]}"
            )
        different = self.differences(found)
        return f"ends otherwise: {different}" if different else None

    def differences(self, found):
        """Files that one tree has and the other has not, or that have other bytes."""
        paths = {**self.undisturbed, **found}
        return sorted(path for path in paths if found.get(path) != self.undisturbed.get(path))


def wrong_end(done, mode):
    """Whether a disturbed run ended in another way than is documented."""
    if "Traceback" in done["output"]:
        return "a traceback"
    if mode in ("killed", "torn"):
        return None if done["code"] == -9 else f"not killed: exit code {done['code']}"
    last = re.split(r"[\r\n]", done["output"].rstrip())[-1]
    if done["code"] == REFUSED and "no room" in mode and "no room" in last:
        return None  # of a preparation
    if done["code"] == 0:
        return None  # what could not be written was no part of the result, such as an old checkpoint's removal
    is_told = done["code"] == FAILED and "doremi: the run failed: " in last  # perhaps after a bar that was cut short
    return None if is_told else f"exit code {done['code']}"


def tree(folder):
    """Every file by path, without what depends on the time."""
    return {str(path.relative_to(folder)): content(path) for path in folder.rglob("*") if not path.is_dir()}


def content(path):
    if path.name in WITH_TIMES - {"history.json"}:
        return "depends on the time"
    data = path.read_bytes()
    if path.suffix == ".json":
        return without_times(json.loads(data))
    return data


def without_times(value):
    if isinstance(value, list):
        return [without_times(item) for item in value]
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES | WITH_TIMES}
    return value
