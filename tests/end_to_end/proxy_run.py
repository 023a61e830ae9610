"""A proxy run to disturb: its reference is finished, and its undisturbed end is known."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from doremi import files
from doremi.cli import main
from tests import trained
from tests.end_to_end.conftest import write_corpus, write_recipe


@dataclass(frozen=True)
class ProxyRun:
    recipe: Path
    undisturbed: Path  # run directory with the finished proxy
    out: Path  # run directory with the finished reference alone

    @property
    def folder(self):
        return self.out / "runs" / trained.folder(self.undisturbed, "proxy").name

    @property
    def command(self):
        return ["train", str(self.recipe), "--run", "proxy", "--out", str(self.out)]

    def assert_same_end(self):
        """The weights and the model, to the last bit."""
        proxy = trained.folder(self.undisturbed, "proxy").relative_to(self.undisturbed)
        for name in ("weights.json", proxy / "model.safetensors"):
            assert (self.out / name).read_bytes() == (self.undisturbed / name).read_bytes()


def make_proxy_run(folder, **training):
    """Train the reference and the undisturbed proxy in this process, which spares two imports of torch."""
    write_corpus(folder)
    run = ProxyRun(write_recipe(folder, **training), folder / "undisturbed", folder / "out")
    undisturbed = ["--out", str(run.undisturbed)]
    assert in_process("train", run.recipe, "--run", "reference", *undisturbed) == 0
    shutil.copytree(run.undisturbed, run.out)
    assert in_process("train", run.recipe, "--run", "proxy", *undisturbed) == 0
    return run


def training_log(run_directory):
    """What was logged with a loss, by step."""
    history = files.read_json(trained.folder(run_directory, "proxy") / "history.json")
    return {entry["step"]: entry for entry in history if "loss" in entry}


def in_process(*arguments):
    """The exit code of the command line."""
    old = signal.getsignal(signal.SIGTERM)
    try:
        return main.main(list(map(str, arguments)))
    finally:
        signal.signal(signal.SIGTERM, old)
