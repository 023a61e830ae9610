"""Command lines: flags, paths and arguments that no verb can use."""

from __future__ import annotations

from tests.hostile.bench import NUL, TOO_LONG, Case

NOT_A_COUNT = (
    "0",
    "-1",
    "1.5",
    "x",
    "",
    "inf",
    "nan",
    "1e400",
    "9" * 5000,
    "٣",
    " 3 ",
    "0x10",
    "true",
    "\x1b[2J",
    "1_0_",
)


def bad_flag_value(bench):
    """Numbers of flags."""
    recipe, corpus, model = bench.write_recipe(), str(bench.base / "corpus"), str(bench.base / "model")
    value = bench.pick(*NOT_A_COUNT)
    return Case(bench.pick(
        ["plan", recipe, f"--devices={value}"], ["loader", "inspect", recipe, "--out", "out", f"--steps={value}"],
        ["prepare", recipe, "--out", "out", "--executor", "local", f"--tasks={value}"],
        ["corpus", "show", corpus, f"--sequence-length={value}"], ["perplexity", model, "--corpus", corpus, f"--max-tokens={value}"],
        ["perplexity", model, "--corpus", corpus, f"--batch-size={value}"],
        ["perplexity", model, "--corpus", corpus, f"--sequence-length={value}"], ["run", recipe, "--out", "out", f"--nproc={value}"],
        ["run", recipe, "--out", "out", f"--slurm={value}"], ["weights", "baseline", "unimax", "--corpus", corpus, f"--tokens={value}"],
    )) if value != " 3 " else Case(["plan", recipe, "--devices=x"])  # fmt: skip


def bad_real(bench):
    """Reals of flags and rules."""
    recipe, corpus = bench.write_recipe(), str(bench.base / "corpus")
    value = bench.pick("nan", "inf", "-inf", "-1", "0", "x", "", "1e999", "9" * 400)
    rule = bench.pick("temperature", "unimax", "natural", "uniform")
    return Case(bench.pick(
        ["plan", recipe, "--device", "h100-sxm", f"--price={value}"], ["plan", recipe, "--device", "h100-sxm", f"--mfu={value}"],
        ["weights", "baseline", "unimax", "--corpus", corpus, "--tokens", "1000", f"--max-epochs={value}"],
        ["weights", "baseline", f"{rule}({value})", "--corpus", corpus, "--tokens", "1000"],
    ))  # fmt: skip


def bad_out(bench):
    """Places where nothing can be written."""
    (bench.folder / "file").touch()
    out = bench.pick(
        bench.bad_path(), "file", "file/out", "/dev/null", "/proc/out", "/sys/out", f"a{NUL}b", TOO_LONG, "/dev/full/x"
    )
    while out.endswith(("folder", "none", "not-UTF-8", "dangling")) or "\udcff" in out:
        out = "file/out"
    recipe, corpus = bench.write_recipe(), str(bench.base / "corpus")
    weights = str(bench.text("w.json", '{"code": 1, "prose": 1}'))
    return Case(bench.pick(
        ["prepare", recipe, "--out", out], ["run", recipe, "--out", out], ["corpus", "export", corpus, "--out", out],
        ["weights", "baseline", "natural", "--corpus", corpus, "--out", f"{out}/w.json"],
        ["weights", "export", weights, "--corpus", corpus, "--format", "megatron", "--out", f"{out}/x"],
        ["perplexity", str(bench.base / "model"), "--corpus", corpus, "--json", f"{out}/x.json"],
        ["report", str(bench.base / "finished"), str(bench.copy("finished")), "--out", f"{out}/x.html"],
    ))  # fmt: skip


def bad_path_argument(bench):
    """Paths to read that cannot be read, of every verb."""
    path = bench.pick(
        bench.bad_path(), bench.bad_path(), f"a{NUL}b", TOO_LONG, "\udcff", "", "\x1b[2J", "/dev/null", "/proc/self/mem"
    )
    corpus, recipe = str(bench.base / "corpus"), bench.write_recipe()
    return Case(bench.pick(
        ["corpus", "show", path], ["corpus", "export", path, "--out", "o"], ["report", path], ["report", path, path + "x"],
        ["weights", "show", path + ".json"], ["weights", "compare", path, "pile-doremi-280m"], ["perplexity", path, "--corpus", corpus],
        ["perplexity", str(bench.base / "model"), "--corpus", path], ["weights", "baseline", "natural", "--corpus", path],
        ["weights", "export", path + ".json", "--format", "nanotron", "--corpus", corpus],
        ["plan", path], ["run", path], ["loader", "inspect", path], ["run", recipe, "--out", "o", "--set", f"corpus.store={path}"],
        ["corpus", "verify", path], ["weights", "baseline", path, "--corpus", corpus],
    ))  # fmt: skip


def bad_usage(bench):
    """Verbs and flags that there are not, or that lack something."""
    recipe = bench.write_recipe()
    return Case(bench.pick(
        [], ["nope"], ["\x1b[2J"], ["run"], ["run", recipe, "--nope"], ["train", recipe], ["weights"], ["weights", "nope"],
        ["run", recipe, "extra"], ["corpus", "show"], ["perplexity"], ["report"], ["loader"], ["recipe", "nope"], ["recipe", "../demo"],
        ["weights", "show", "nope"], ["run", recipe, "--\x1b[2J"], ["plan", recipe, "--device", "\x1b[2J"], ["plan", recipe, "--price", "1"],
        ["prepare", recipe, "--executor", "nope"], ["corpus", "export", "x"], ["run", recipe, "--tokenizer-backend", "x\x1b[2J"],
        ["plan", recipe, "--device", "nope"], ["train", recipe, "--run", "\x1b[2J", "--out", "o"], ["weights", "baseline", "\x1b[2J"],
        ["recipe", "\udcff"], ["recipe", f"a{NUL}"], ["recipe", TOO_LONG], ["run", recipe, "--sbatch", "x"], ["x" * 100_000],
        ["prepare", recipe, "--executor", "slurm"], ["prepare", recipe, "--executor", "slurm", "--sbatch", "x"],
    ))  # fmt: skip


def bad_set(bench):
    """``--set`` of what cannot be set."""
    setting = bench.pick(
        "x", "=", "training", "training.steps", ".=1", "training..steps=1", "training.steps=[", "training.steps=*a", "a.b.c.d=1",
        "training.steps=&a [*a]", "training.steps=!!python/none", "training.steps=2020-13-45", f"training.steps={'9' * 5000}",
        "training.steps=1e999", "corpus=3", "seed.x=1", "\x1b[2J=1", "training.\x1b[2J=1", "training.steps=\x1b[2J", "training.steps=",
        "corpus.inputs.0.path=x", "training.steps={a: 1, a: 2}", f"training.steps={'[' * 5000}", "training.steps=\udcff", "seed=\0",
        "training.steps={[a]: 1}", "training=!!binary x", "seed=9223372036854775808", "models.proxy=\udcff", f"{'a.' * 5000}b=1",
        "training.arguments.__class__=1", "models.main.overrides.__class__=1", "training.steps=? ", "training.learning_rate=1e-400x",
    )  # fmt: skip
    return Case([*bench.pick(["run"], ["plan"], ["prepare"]), bench.write_recipe(), "--out", "out", "--set", setting])


CLASSES = (bad_flag_value, bad_real, bad_out, bad_path_argument, bad_usage, bad_set)
