"""Recipes that are not valid: every key with every kind of value that it cannot have, and files that are no recipe."""

from __future__ import annotations

import yaml

from doremi.experiment.recipe import Recipe, describe_fields
from tests.hostile.bench import Case

NOT_A_NUMBER = ("true", "'3'", ".inf", "-.inf", ".nan", "-1", "[1]", "{a: 1}", "2020-01-01", "''", "3 GB", "9" * 5000,
                "-" + "9" * 400, "!!binary aGk=", "!!set {a}", "0x" + "f" * 300)  # fmt: skip
NOT_A_TEXT = ("1", "true", ".nan", "[a]", "{a: 1}", "2020-01-01", "1.5", "!!binary aGk=", "{? [a] : b}")
NOT_A_CHOICE = ("other", "''", '"\\e[2J"', "3", "[]", "9" * 5000)
NOT_A_LIST = ("3", "{a: 1}", "'text'", "[3]", "[[]]", "[null]", "true", "[2020-01-01]")
NOT_A_MAPPING = ("3", "[1]", "'text'", "true", "{1: 2}", "{null: 3}", "{[a]: 1}", "2020-01-01")


def kinds():
    """Dotted key to the values that it cannot have, from the schema's own types."""
    found = {}
    for key, *_ in describe_fields():
        if "[]" in key or key.endswith(".overrides") or key == "training.arguments":
            continue
        section = Recipe
        *sections, name = key.split(".")
        for part in sections:
            section = _inner(section, part)
        found[key] = _bad_values(str(section.model_fields[name].annotation))
    return found


def _inner(section, part):
    annotation = section.model_fields[part].annotation
    return next(a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields"))


def _bad_values(annotation):
    if "Literal" in annotation and "int" not in annotation:
        return NOT_A_CHOICE
    if "list" in annotation:
        return NOT_A_LIST
    if "Config" in annotation or annotation.startswith("dict"):
        return NOT_A_MAPPING
    if "str" in annotation:
        return NOT_A_TEXT if "dict" not in annotation else ("1", "true", "[a]", ".inf", "{a: true}", "{a: '1'}")
    if "bool" in annotation:
        return ("3", "'true'", "[]", "no please", ".nan")
    return NOT_A_NUMBER if "dict" not in annotation else ("true", "'3'", ".inf", ".nan", "{a: true}", "{a: .inf}")


BAD_VALUES = kinds()


def bad_value(bench):
    """A key with a value of another type, or beyond its bounds."""
    key = bench.pick(*BAD_VALUES)
    value = bench.pick(*BAD_VALUES[key])
    if key == "corpus.store":
        bench.recipe["corpus"].pop("inputs")
    return _with(bench, key, value, *bench.pick(["plan"], ["prepare"], ["run"], ["run", "--dry-run"]))


def bad_value_in_an_override(bench):
    """The same through ``--set``."""
    key = bench.pick(*BAD_VALUES)
    value = bench.pick(*[value for value in BAD_VALUES[key] if value not in ("''",)])
    return Case(["run", bench.write_recipe(), "--out", "out", "--set", f"{key}={value}"])


def absurd_number(bench):
    """Numbers that no machine has room or time for."""
    keys = ("training.steps", "training.global_batch_size", "training.sequence_length", "verify.seeds",
            "doremi.rounds", "doremi.seeds", "evaluation.batch_size", "corpus.num_workers",
            "corpus.tokenizer.vocab_size", "training.save_total_limit", "training.num_threads", "evaluation.num_fewshot",
            "doremi.max_rounds", "cluster.prepare_tasks", "cluster.gpus_per_node")  # fmt: skip
    value = bench.pick("1000000000000000000", "1" + "0" * 30, "9" * 400)
    return _with(bench, bench.pick(*keys), value, *bench.pick(["plan"], ["run"], ["loader", "inspect"]))


def absurd_real(bench):
    """Reals that overflow, underflow or vanish once they are computed with."""
    keys = ("training.learning_rate", "training.max_epochs", "doremi.step_size", "doremi.tolerance",
            "corpus.tokenizer.train_megabytes", "doremi.max_main_epochs", "training.max_grad_norm")  # fmt: skip
    return _with(bench, bench.pick(*keys), bench.pick(".inf", ".nan", "-.inf", "1e999", "1.0e+999", "-0.0"), "plan")


def bad_path(bench):
    """A path that the file system has something against, wherever a recipe takes one."""
    keys = ("corpus.inputs", "corpus.tokenizer.path", "models.main", "models.reference", "prior",
            "methods", "corpus.store", "evaluation.tasks", "training.arguments.fsdp_config")  # fmt: skip
    key = bench.pick(*keys)
    suffix = {"corpus.inputs": ".jsonl", "prior": ".json", "methods": ".json"}.get(key, "")
    path = bench.pick(bench.bad_path(suffix), f"bad{chr(0)}{suffix}", bench.bad_path(suffix))
    value = {
        "corpus.inputs": [{"path": path, "domain": "a"}],
        "methods": [path],
        "evaluation.tasks": [f"{path}/"],
        "models.main": {"path": f"{path}/"},
        "models.reference": {"path": f"{path}/", "init": "trained"},
        "training.arguments.fsdp_config": path + ".json",
    }.get(key, path)
    if key == "corpus.store":
        bench.recipe["corpus"].pop("inputs")
    return _with(bench, key, yaml.safe_dump(value, default_flow_style=True, width=10**9).split("\n...")[0], "run")


def not_a_recipe(bench):
    """A file that is no YAML mapping."""
    text = bench.pick(
        "", "[]", "3", "text", "a: b: c", "{", "\t- a", "corpus: [", "\x00", b"\xff\xfe\x00c", b"corpus: \x80",
        "corpus: !!python/object/apply:os.system [echo]", "--- a\n--- b", "&a [*a]", "a: *b", "%YAML 9.9\n---\na: 1",
        "[" * 20000, "{a: " * 3000, "? [x]\n: 1", "1: 2", "null: 3", "2020-13-45: 1", "corpus: 2020-13-45",
        "corpus: !!int abc", "corpus: !!float x", "? {a: b}\n: c", "\x1b[2Jcorpus: 1", "corpus\u202e: 1", "a: 1\n" * 50,
        b"\x89PNG\r\n\x1a\n", "x" * 200_000, "<<: 3", "corpus: {<<: [1]}", b"PK\x03\x04", "corpus: !!timestamp x",
    )  # fmt: skip
    return Case([bench.pick("run", "plan", "prepare"), bench.write_recipe(text), "--out", "out"])


def no_recipe_file(bench):
    """A recipe's path that cannot be read."""
    path = bench.pick(bench.bad_path(".yaml"), "/dev/null", "", ".", "\udcff.yaml", "nowhere\x1b[2J")
    return Case([*bench.pick(["run"], ["plan"], ["prepare"], ["train", "--run", "main"]), path, "--out", "out"])


def duplicate_key(bench):
    """The same key twice, in any section."""
    key = bench.pick("corpus", "training", "models", "steps", "inputs", "tokenizer", "proxy", "evaluation")
    lines = yaml.safe_dump(bench.recipe, sort_keys=False).splitlines()
    index = next(i for i, line in enumerate(lines) if line.strip().startswith(f"{key}:"))
    indent = lines[index][: len(lines[index]) - len(lines[index].lstrip())]
    end = next((i for i in range(index + 1, len(lines)) if _ends_block(lines[i], indent)), len(lines))
    return Case(
        ["plan", bench.write_recipe("\n".join([*lines[:end], *lines[index:end], *lines[end:]])), "--out", "out"]
    )


def alias_bomb(bench):
    """Kilobytes that unfold to gigabytes."""
    depth = bench.rng.randrange(7, 30)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, depth)]
    return Case(["plan", bench.write_recipe("\n".join(lines)), "--out", "out"])


def same_input_twice(bench):
    """Text that would be read twice: named twice, by overlapping patterns, through a link."""
    path = bench.recipe["corpus"]["inputs"][0]["path"]
    (bench.folder / "link.jsonl").symlink_to(path)
    other = bench.pick(
        path, str(bench.folder / "*.jsonl"), str(bench.folder / "link.jsonl"), f"{bench.folder}/./corpus.jsonl"
    )
    entry = {"path": other, "domain_field": "domain"}
    bench.recipe["corpus"][bench.pick("inputs", "held_out_inputs")] = [bench.recipe["corpus"]["inputs"][0], entry]
    return bench.run(bench.pick("prepare", "run"))


def unknown_key(bench):
    """A key that no section has, with a name that would move a cursor."""
    name = bench.pick('"\\e[2J"', "ste ps", '"\\u202e"', "__class__", "'0'", "x" * 5000, '"\\0"', '"a\\nb"')
    section = bench.pick("", "corpus.", "training.", "models.proxy.", "evaluation.", "cluster.")
    return _with_raw_key(bench, f"{section}", name)


def bad_argument(bench):
    """``training.arguments`` that transformers does not take, by name or by value."""
    value = bench.pick(
        "{bf16: [1]}", "{optim: nonsense}", "{report_to: nowhere}", "{report_to: 5}", "{1: 2}",
        "{nope: 1}", "{fsdp_config: 3}", "{fsdp_config: {version: x}}", "{fsdp_config: [1]}", "{seed: 1}", '{"\\e[2J": 1}',
        "{lr_scheduler_kwargs: x}", "{save_strategy: never}", "{optim_args: 5}", "{torch_compile_mode: 3}", "3",
        "{dataloader_num_workers: x}", "{fsdp_config: nowhere.json}", "{half_precision_backend: x}", "[a]",
        "{bf16: true, fp16: true}", "{accelerator_config: nowhere.json}", "{log_level: shout}", "{hub_strategy: x}",
    )  # fmt: skip
    return _with(bench, "training.arguments", value, "run")


def bad_override(bench):
    """``overrides`` of a model's configuration or of a run's training."""
    if bench.rng.random() < 0.3:
        value = bench.pick("{main: {steps: true}}", "{main: {steps: -1}}", "{main: 3}", "{other: {steps: 1}}",
                           "{main: {nope: 1}}", "{proxy: {overrides: {}}}", "{main: {learning_rate: .inf}}")  # fmt: skip
        return _with(bench, "training.overrides", value, "run")
    key, value = bench.pick(
        ("hidden_size", "-1"), ("hidden_size", "x"), ("num_attention_heads", "0"), ("num_attention_heads", "7"),
        ("num_hidden_layers", "-3"), ("num_hidden_layers", "x"), ("intermediate_size", "0"), ("hidden_act", "nope"),
        ("rms_norm_eps", "x"), ("nope", "1"), ("rope_parameters", "3"), ("hidden_size", "1000000000000000000"),
        ("num_key_value_heads", "3"), ("hidden_size", ".inf"), ("hidden_size", "[1]"), ("__class__", "3"),
    )  # fmt: skip
    return _with(
        bench,
        f"models.{bench.pick('reference', 'proxy', 'main')}",
        f"{{preset: tiny, overrides: {{{key}: {value}}}}}",
        "run",
    )


READERS = {
    "arity": "def read(a): yield 'x', 'y'", "not callable": "read = 3", "no generator": "def read(): return 5",
    "wrong items": "def read(): yield 3", "triples": "def read(): yield 'a', 'b', 'c'", "none": "def read(): yield None",
    "raises": "def read():\n yield 'a', 'b'\n raise RuntimeError('no\\x1b[2J luck')", "raises at once": "def read(): 1 / 0",
    "number as domain": "def read(): yield 3, 'text'", "bytes": "def read(): yield 'a', b'text'",
    "syntax": "def read(:", "raises on import": "raise ValueError('x')", "exits": "import sys\nsys.exit(3)",
    "imports nothing": "import nothing_that_exists", "exits later": "def read():\n yield 'a', 'b'\n raise SystemExit(0)",
    "dict": "def read(): return {'a': 'b'}", "str": "def read(): return 'ab'", "floats": "def read(): yield 'a', [1.5]",
    "negative ids": "def read(): yield 'a', [-1]", "huge ids": "def read(): yield 'a', [10**30]",
    "class": "class read:\n def __init__(self): pass", "empty domain": "def read(): yield '', 'x'",
    "stops": "def read():\n raise StopIteration\n yield", "generator exit": "def read():\n yield 'a','b'\n raise GeneratorExit",
    "recursion": "def read(): return read()", "async": "async def read(): yield 'a', 'b'",
    "metaclass": "class M(type):\n def __call__(c): raise KeyError('x')\nclass read(metaclass=M): pass",
    "unprintable": "class E(Exception):\n def __str__(s): raise ValueError\ndef read():\n raise E\n yield",
    "silent": "def read(): return iter(())",
}  # fmt: skip


def bad_reader(bench):
    """A reader that is none, or that fails in the middle."""
    if bench.rng.random() < 0.25:
        name = bench.pick(
            "nocolon", ":read", "a:", "no.such:read", "..x:read", "json:nope", "os:path", "a b:c", "\\0:x"
        )
    else:
        bench.text("hostile_reader.py", READERS[bench.pick(*READERS)])
        name = "hostile_reader:read"
    value = f'[{{reader: "{name}"}}]'
    return _with(bench, "corpus.inputs", value, bench.pick("prepare", "run"))


CLASSES = (bad_value, bad_value_in_an_override, absurd_number, absurd_real, bad_path, not_a_recipe, no_recipe_file,
           duplicate_key, alias_bomb, same_input_twice, unknown_key, bad_argument, bad_override, bad_reader)  # fmt: skip


def _with(bench, key, value, *verb):
    """The recipe with one value given as YAML text."""
    content = bench.recipe
    *sections, name = key.split(".")
    for part in sections:
        content = content.setdefault(part, {})
    content[name] = "@@@"
    text = yaml.safe_dump(bench.recipe, sort_keys=False).replace("'@@@'", value).replace("@@@", value)
    return Case([*verb, bench.write_recipe(text), "--out", "out"])


def _with_raw_key(bench, section, name):
    lines = {"": f"{name}: 1\n"}.get(section)
    text = yaml.safe_dump(bench.recipe, sort_keys=False)
    if lines is None:
        content = bench.recipe
        for part in section.rstrip(".").split("."):
            content = content.setdefault(part, {})
        content["@@@"] = 1
        text = yaml.safe_dump(bench.recipe, sort_keys=False).replace("'@@@'", name).replace("@@@", name)
    return Case(["plan", bench.write_recipe(text if lines is None else text + lines), "--out", "out"])


def _ends_block(line, indent):
    return len(line) - len(line.lstrip()) <= len(indent) and not line[len(indent) :].startswith("- ")
