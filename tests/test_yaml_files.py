"""YAML that would take gigabytes, minutes or the stack is refused with a line; all else is what PyYAML reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from doremi.errors import InputError, MissingFileError
from doremi.files import yaml_files
from doremi.files.yaml_files import LimitedLoader, load, read


def laughs(levels: int, width: int = 9) -> str:
    """Nested aliases: under 1 kB that stand for ``width ** levels`` strings."""
    lines = ["l0: &l0 [lol]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int, width: int = 9) -> str:
    """The same by merge keys, whose pairs PyYAML copies."""
    lines = ["l0: &l0 {lol: 1}"]
    lines += [f"l{n}: &l{n} {{'<<': [{', '.join([f'*l{n - 1}'] * width)}]}}" for n in range(1, levels)]
    return "\n".join(lines).replace("'<<'", "<<")


HOSTILE = {
    "aliases": (laughs(12), r"more than 4,000,000 characters once its aliases are replaced"),
    "merge keys": (merges(12), r"more than 4,000,000 characters once its aliases are replaced"),
    "a long string again and again": (
        "a: &a " + "x" * 500_000 + "\nb: [" + ", ".join(["*a"] * 20) + "]",
        "line 2, column 4: more than 4,000,000 characters",
    ),
    "an alias of itself": ("a: &a [*a]", r"line 1, column 4: an alias stands within what it stands for"),
    "brackets": ("a: " + "[" * 100_000, r"line 1, column 53: nested more than 50 deep"),
    "braces": ("a: " + "{a: " * 100_000, r"nested more than 50 deep"),
    "dashes": ("- " * 100_000, r"line 1, column 101: nested more than 50 deep"),
    "question marks": ("? " * 100_000, r"nested more than 50 deep"),
    "a long tag": ("a: !" + "x" * 500_000, r"could not determine a constructor"),
    "a long alias": ("a: *" + "x" * 500_000, r"found undefined alias"),
    "an integer of many digits": ("a: " + "9" * 5_000, r"line 1, column 4: '9999.*' is not what it looks like"),
    "a date that is none": ("a: 2026-13-45", r"'2026-13-45' is not what it looks like: month .*; put quotes"),
    "a time that is none": ("a: 2026-11-24 25:00:00", r"is not what it looks like: hour must be"),
    "no number": ("a: !!int x", r"'x' is not what it looks like"),
    "no boolean": ("a: !!bool x", r"'x' is not what it looks like"),
    "too long": ("a: " + "x" * 1_000_000, r"longer than 1,000,000 characters"),
    "control characters": ("a: \x00", "special characters are not allowed"),
    "a list as a key": ("? [a]\n: 1", "line 1, column 3: found unhashable key"),
    "code": ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    "two documents": ("a: 1\n---\nb: 2", "line 2, column 1: but found another document"),
    "a key twice": ("a: 1\nb: 2\na: 3", r"line 3, column 1: key 'a' is given twice, first in line 1; take one"),
    "a key twice in a line": ("x: {a: 1, 'a': 2}", r"line 1, column 11: key 'a' is given twice, first in line 1"),
    "a key twice further down": ("x:\n  y:\n    a: 1\n    a: 1", r"line 4, column 5: key 'a' is given twice"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_refused_with_its_place_in_a_short_message(what):
    text, message = HOSTILE[what]
    with pytest.raises(InputError, match=message) as caught:
        load(text, source="my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert len(str(caught.value)) < 500


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_in_little_memory(tmp_path):
    """Each in one process whose heap cannot grow by 200 MB: the nodes are never multiplied."""
    (tmp_path / "hostile.py").write_text(
        "import resource, sys\n"
        "from doremi.errors import InputError\nfrom tests.test_yaml_files import HOSTILE, load\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)\n"
        "for text, _ in HOSTILE.values():\n    try:\n        load(text, source='x')\n"
        "    except InputError:\n        continue\n    sys.exit(1)\n"
    )
    root = Path(__file__).parents[1]
    environment = {"PYTHONPATH": ":".join([str(root), *sys.path])}
    subprocess.run([sys.executable, tmp_path / "hostile.py"], cwd=root, env=environment, check=True)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {b: [1, 2.5, true, null, 2026-11-24]}\nc: *a\n",
        "a: &a {b: 1, c: 2}\nd:\n  <<: *a\n  c: 3\n",  # what is merged may be given again
        "a: 1\nx: {a: 2}\n",
        "",
        "[" * 49 + "]" * 49,
    ],
)
def test_all_else_is_what_pyyaml_reads(text):
    assert load(text, source="x") == yaml.safe_load(text)


def test_a_loader_that_lets_keys_stand_twice():
    assert load("{a: 1, a: 2}", source="x", loader=LimitedLoader) == {"a": 2}


class TestFiles:
    """No more than the limit is ever read."""

    def test_read(self, tmp_path):
        (tmp_path / "a.yaml").write_text("a: [1]\n")
        assert read(tmp_path / "a.yaml") == {"a": [1]}

    @pytest.mark.skipif(sys.platform != "linux", reason="a file without end")
    def test_a_file_without_end(self):
        with pytest.raises(InputError, match="/dev/zero: a pipe, socket or device; expected a file"):
            read(Path("/dev/zero"))

    def test_a_file_of_a_terabyte(self, tmp_path):
        with (tmp_path / "long.yaml").open("wb") as file:
            file.truncate(10**12)  # takes no room
        with pytest.raises(InputError, match=r"long\.yaml: longer than 1,000,000 bytes, expected a YAML file"):
            read(tmp_path / "long.yaml")

    def test_what_is_no_yaml_file(self, tmp_path):
        (tmp_path / "binary.yaml").write_bytes(b"a: \xff")
        with pytest.raises(InputError, match=r"binary\.yaml: not UTF-8 text \(byte 4\)"):
            read(tmp_path / "binary.yaml")
        with pytest.raises(InputError, match="is a folder, expected a YAML file"):
            read(tmp_path)
        with pytest.raises(MissingFileError, match=r"missing\.yaml: no such file"):
            read(tmp_path / "missing.yaml")


def test_the_limits_leave_room_for_ten_thousand_domains():
    text = "weights:\n  reference:\n" + "".join(f"    domain number {n}: {1 / (n + 1)}\n" for n in range(2_000))
    assert len(text) * 5 < yaml_files.MAX_BYTES / 2  # that of ten thousand
    assert len(load(text, source="x")["weights"]["reference"]) == 2_000
