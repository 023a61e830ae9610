"""The demo corpus: the same text in the same order everywhere, of the promised size, junk included."""

import base64
import itertools
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from doremi.corpus.demo import sample, sample_domains, sample_files
from doremi.corpus.demo.sample_domains import Domain
from doremi.corpus.demo.sample_files import InstalledFile
from doremi.errors import InputError
from doremi.files import digest_json

CORPUS_DIGEST_SCRIPT = """
import sys
from doremi.corpus.demo.sample import documents
from doremi.files import digest_json
print(digest_json(list(documents())), *sorted({"torch", "transformers", "datasets", "django"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def corpus() -> list[tuple[str, str]]:
    return list(sample.documents())


@pytest.fixture(scope="module")
def domain_bytes(corpus) -> Counter:
    sizes: Counter = Counter()
    for domain, text in corpus:
        sizes[domain] += len(text.encode())
    return sizes


def install(site: Path, name: str, files: dict[str, bytes], *, recorded: list[str] | None = None) -> None:
    """Lay out ``site`` as if pip had installed a distribution with these files there."""
    about = f"{name.replace('-', '_')}-1.0.dist-info"
    description = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n\n{'All about it. ' * 40}\n"
    content = {**files, f"{about}/METADATA": description.encode()}
    content[f"{about}/RECORD"] = "".join(f"{file},,\n\n" for file in recorded or sorted(content)).encode()
    for file, data in content.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_bytes(data)


# The same everywhere


def test_another_process_collects_the_same_corpus_and_imports_none_of_what_it_reads(corpus):
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-W", "error", "-c", CORPUS_DIGEST_SCRIPT]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.split() == [digest_json(corpus)]


class ShuffledScan:
    """`os.scandir` in a random order."""

    scandir = staticmethod(os.scandir)
    generator = random.Random(0)

    def __init__(self, path: str = "."):
        with self.scandir(path) as entries:
            self._entries = list(entries)
        self.generator.shuffle(self._entries)

    def __iter__(self) -> Iterator[os.DirEntry]:
        return self

    def __next__(self) -> os.DirEntry:
        if not self._entries:
            raise StopIteration
        return self._entries.pop()

    def __enter__(self) -> Iterator[os.DirEntry]:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_file_system_order_and_unrelated_distributions_change_nothing(corpus, tmp_path, monkeypatch):
    prose = b"# An unrelated package.\n" * 50
    suffixes = (".py", ".pyi", ".h", ".yml", ".po", ".so")
    own = {f"aaa/file{suffix}": prose for suffix in suffixes} | {"aaa/tests/test_a.py": prose}
    install(tmp_path, "aaa", {**own, "aaa-1.0.dist-info/LICENSE": prose})
    monkeypatch.syspath_prepend(tmp_path)
    assert metadata.version("aaa") == "1.0"
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path=".": sorted(listdir(path), reverse=True))
    monkeypatch.setattr(os, "scandir", ShuffledScan)
    assert list(sample.documents()) == corpus


def test_domains_come_one_after_the_other_in_the_order_of_the_table(corpus):
    assert list(dict.fromkeys(domain for domain, _ in corpus)) == [domain.name for domain in sample.DOMAINS]
    changes = sum(a != b for (a, _), (b, _) in itertools.pairwise(corpus))
    assert changes == len(sample.DOMAINS) - 1


# The promised size


def test_ten_to_thirty_megabytes_in_unequal_capped_domains(domain_bytes):
    assert 10e6 <= domain_bytes.total() <= 30e6
    assert len(domain_bytes) >= 8
    assert max(domain_bytes.values()) >= 10 * min(domain_bytes.values())
    for domain in sample.DOMAINS:
        assert 100_000 <= domain_bytes[domain.name] <= domain.max_bytes


def test_documents_are_distinct_and_neither_long_nor_short(corpus):
    texts = [text for _, text in corpus]
    assert len(set(texts)) == len(texts)
    assert min(map(len, texts)) >= 200
    assert max(len(text.encode()) for text in texts) <= sample.MAX_DOCUMENT_BYTES <= 20_000


def test_every_domain_has_enough_documents_to_hold_some_out(corpus):
    assert min(Counter(domain for domain, _ in corpus).values()) >= 100


def test_junk_is_base64_in_a_tenth_or_so_of_the_tokens(corpus):
    junk = [text for domain, text in corpus if domain == "base64"]
    assert all(1_000 <= len(base64.b64decode(text, validate=True)) * 4 / 3 <= 9_000 for text in junk)
    subsample = corpus[::20]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2048, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((text for _, text in subsample), trainer)
    tokens: Counter = Counter()
    for domain, text in subsample:
        tokens[domain] += len(tokenizer.encode(text).ids)
    assert 0.08 <= tokens["base64"] / tokens.total() <= 0.2


# What an installation may lack


def without(monkeypatch, *names: str) -> None:
    """Make these distributions look absent; without any name, all."""
    present = metadata.distribution

    def distribution(name: str) -> metadata.Distribution:
        if name in names or not names:
            raise metadata.PackageNotFoundError(name)
        return present(name)

    monkeypatch.setattr(metadata, "distribution", distribution)


def test_without_the_demo_extra_two_domains_are_left_out_with_a_warning(corpus, monkeypatch):
    without(monkeypatch, "chatterbot-corpus", "django")
    with pytest.warns(
        UserWarning, match=r"'(chat|translations)' is left out.*pip install 'doremi-mixture\[demo\]'"
    ) as caught:
        remaining = list(sample.documents())
    assert [str(warning.message).split("'")[1] for warning in caught] == ["chat", "translations"]
    assert remaining == [(domain, text) for domain, text in corpus if domain not in ("chat", "translations")]


def test_too_few_domains_are_an_error_that_names_them_and_the_remedy(monkeypatch):
    without(monkeypatch)
    with (
        pytest.warns(UserWarning, match="0 documents, 0 kB of it, at least 100 and 100 kB are needed"),
        pytest.raises(
            InputError, match=r"at least 8 are needed; missing: .*'base64'.*pip install 'doremi-mixture\[demo\]'"
        ),
    ):
        next(sample.documents())


def test_a_python_without_its_language_reference_has_no_such_domain(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)  # what Python takes for a module that is absent
    assert list(sample_domains.language_reference()) == []


# The rules, on domains made for it


def made_of(*texts: str, name: str, max_bytes: int = 10**9) -> Domain:
    return Domain(name, max_bytes, lambda: iter(texts))


@pytest.fixture
def small_minimum(monkeypatch):
    monkeypatch.setattr(sample, "MIN_DOMAIN_BYTES", 500)
    monkeypatch.setattr(sample, "MIN_DOMAIN_DOCUMENTS", 2)
    monkeypatch.setattr(sample, "MIN_DOMAINS", 2)


def test_a_document_stays_only_where_it_is_first_and_a_domain_ends_at_its_cap(monkeypatch, small_minimum):
    a, b, c, d, e = (letter * 300 for letter in "abcde")
    domains = (made_of(a, b, a, c, name="first", max_bytes=899), made_of(b, d, e, name="second"))
    monkeypatch.setattr(sample, "DOMAINS", domains)
    assert list(sample.documents()) == [("first", a), ("first", b), ("second", d), ("second", e)]


def test_a_domain_of_few_documents_is_left_out_however_large_they_are(monkeypatch, small_minimum):
    enough = ("a" * 300, "b" * 300), ("c" * 300, "d" * 300)
    domains = (made_of("x" * 4000, name="one"), made_of(*enough[0], name="two"), made_of(*enough[1], name="three"))
    monkeypatch.setattr(sample, "DOMAINS", domains)
    with pytest.warns(UserWarning, match="'one' is left out: this installation has 1 documents, 4 kB"):
        assert {domain for domain, _ in sample.documents()} == {"two", "three"}


def test_reading_is_lazy_beyond_the_minimum(monkeypatch, small_minimum):
    read: list[int] = []

    def endless() -> Iterator[str]:
        for number in range(10**9):
            read.append(number)
            yield f"{number:0300}"

    monkeypatch.setattr(sample, "DOMAINS", (Domain("a", 10**9, endless), made_of("b" * 300, "c" * 300, name="b")))
    stream = sample.documents()
    assert [next(stream)[1] for _ in range(3)] == ["0" * 300, f"{1:0300}", f"{2:0300}"]
    assert read == [0, 1, 2]


def test_the_table_counts_documents_and_megabytes(monkeypatch, small_minimum):
    domains = (made_of("é" * 2000, "a" * 2000, name="x"), made_of(*(c * 5000 for c in "bcd"), name="y"))
    monkeypatch.setattr(sample, "DOMAINS", domains)
    rows = [line.split() for line in sample.describe().splitlines()]
    assert rows == [["domain", "documents", "MB"], ["x", "2", "0.01"], ["y", "3", "0.01"], ["total", "5", "0.02"]]


# Splitting


def test_a_long_text_is_cut_at_the_last_line_end_that_fits():
    lines = [f"    line {number:04}: " + "é" * 92 + "\n" for number in range(60)]  # 200 bytes each
    pieces = list(sample.split("".join(lines)))
    assert pieces == ["".join(lines[start : start + 25]).strip("\n") for start in (0, 25, 50)]


def test_a_line_longer_than_a_document_is_dropped_and_the_rest_kept():
    before, after = "before\n" * 50, "after\n" * 50
    assert list(sample.split(before + "x" * 5001 + "\n" + after)) == [before.strip(), after.strip()]


@pytest.mark.parametrize(("length", "kept"), [(0, 0), (199, 0), (200, 1)])
def test_short_texts_are_dropped(length, kept):
    assert len(list(sample.split("y" * length + "\n"))) == kept


@settings(derandomize=True, max_examples=200)
@given(st.lists(st.text(st.sampled_from("aé漢 "), min_size=1, max_size=1500), max_size=30))
def test_pieces_are_whole_lines_in_order_and_within_the_limits(lines):
    pieces = list(sample.split("\n".join(lines)))
    assert all(len(piece) >= 200 and len(piece.encode()) <= 5_000 for piece in pieces)
    remaining = iter(lines)
    assert all(line in remaining for piece in pieces for line in piece.split("\n"))


# Sources


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    files = {"demo/a.py": b"first", "demo/latin.py": b"caf\xe9", "demo/__pycache__/a.pyc": b"x", "demo/b.h": b"header"}
    escape = {"../outside.py": b"outside"}
    site = tmp_path / "site"
    install(site, "a-package", {**files, **escape}, recorded=[*files, *escape, "demo/stripped.py"])
    (site / "demo/stray.py").write_text("not recorded")
    monkeypatch.syspath_prepend(site)
    return site


def test_only_recorded_files_inside_the_packages_are_read_if_present_and_utf8(package):
    files = list(sample_files.distribution_files(["a-package", "absent-package"], ".py"))
    assert {str(file.key) for file in files} == {"demo/a.py", "demo/latin.py", "demo/stripped.py"}
    assert list(sample_files.read_texts(files)) == ["first"]


def test_without_a_suffix_all_recorded_files_are_found(package):
    keys = {str(file.key) for file in sample_files.distribution_files(["a-package"])}
    assert {"demo/b.h", "demo/__pycache__/a.pyc"} < keys


@pytest.mark.parametrize(
    ("key", "expected"),
    [("numpy/tests/common.py", True), ("test/support.py", True), ("x/test_y.py", True), ("x/testing.py", False)],
)
def test_unit_tests_are_told_by_their_names(key, expected):
    assert sample_files.is_test(InstalledFile(PurePosixPath(key), Path(key))) is expected


def test_translated_strings_are_joined_and_unescaped_without_header_and_gaps():
    catalogue = r"""
# Somebody <somebody@example.org>, 2020
msgid ""
msgstr ""
"Language-Team: Nobody\n"

msgid "yes"
msgstr "ja"

msgid "untranslated"
msgstr ""

msgid "long"
msgstr ""
"er sagte "
"\"nein\"\n"
"C:\\new"

msgid "%d day"
msgid_plural "%d days"
msgstr[0] "%d Tag"
msgstr[1] "%d Tage"

#~ msgid "old"
#~ msgstr "alt"
"""
    expected = ["ja", 'er sagte "nein"\nC:\\new', "%d Tag", "%d Tage"]
    assert list(sample_domains.translated_strings(catalogue)) == expected


def test_docstrings_are_all_that_is_kept_of_a_module(tmp_path, monkeypatch):
    source = b'''"""Module."""
import x
class A:
    r"""Class.

        Indented.
    End.
    """
    text = """not a docstring"""
    def f(self):
        """Function."""
'''
    install(tmp_path, "documented", {"documented/a.py": source, "documented/tests/b.py": b'"""Test."""'})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sample_domains, "DOCUMENTED", ("documented",))
    assert list(sample_domains.docstrings()) == ["Module.\n\nClass.\n\n    Indented.\nEnd.\n\nFunction."]


def test_character_names_leave_out_those_that_only_number():
    text = "\n".join(sample_domains.character_names())
    assert "U+0041 LATIN CAPITAL LETTER A\nU+0042 LATIN CAPITAL LETTER B\n" in text
    assert "U+4E00 CJK UNIFIED IDEOGRAPH-4E00" not in text
    assert "U+1F600 GRINNING FACE" in text


def test_padding_in_binaries_is_no_junk(tmp_path, monkeypatch):
    noise = random.Random(0).randbytes(200_000)
    install(tmp_path, "compiled", {"compiled/zero.so": bytes(200_000), "compiled/noise.so": noise})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sample_domains, "COMPILED", ("compiled",))
    windows = [base64.b64decode(text) for text in sample_domains.base64_of_binaries()]
    assert len(windows) == sample_domains.WINDOWS_PER_BINARY
    assert all(window in noise for window in windows)
    assert len({len(window) for window in windows}) > 1


def test_the_standard_library_is_its_modules_without_tests_and_optional_parts(tmp_path, monkeypatch):
    for name in (
        "ast.py",
        "asyncio/events.py",
        "ctypes/test/test_a.py",
        "tkinter/a.py",
        "stray.py",
        "site-packages/a.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(sample_domains.sysconfig, "get_path", lambda name: str(tmp_path))
    assert set(sample_domains.python_stdlib()) == {"ast.py", "asyncio/events.py"}


def test_headers_are_pythons_own_and_the_written_ones(tmp_path, monkeypatch):
    for name in ("Python.h", "pyconfig.h", "cpython/code.h", "internal/pycore.h", "greenlet/greenlet.h"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"// {name}")
    operators = {"torch/include/ATen/ops/add.h": b"// generated", "torch/include/ATen/Tensor.h": b"// written"}
    install(tmp_path / "site", "torch", operators)
    without(monkeypatch, "numpy", "pyarrow")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(sample_domains.sysconfig, "get_path", lambda name: str(tmp_path))
    expected = {"// Python.h", "// cpython/code.h", "// internal/pycore.h", "// written"}
    assert set(sample_domains.c_headers()) == expected
