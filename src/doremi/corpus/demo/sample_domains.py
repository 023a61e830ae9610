"""What the demo corpus reads: one function per domain, over Python itself and a fixed list of distributions.

A domain depends on their versions and on nothing else. They are read as files, none of them is imported.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import itertools
import re
import sys
import sysconfig
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from doremi.corpus.demo.sample_files import (
    InstalledFile,
    distribution_files,
    folder_files,
    is_test,
    read_texts,
    shuffled,
)
from doremi.errors import install_hint
from doremi.files import digest_bytes

# All of these come with doremi: its dependencies and theirs. The first two lists are disjoint, so that no prose of
# `docstrings` occurs in `python-libraries` too.
LIBRARIES = (
    "accelerate", "datasets", "huggingface-hub", "numpy", "pydantic", "rich", "tokenizers", "torch", "transformers",
)  # fmt: skip
DOCUMENTED = ("networkx", "pandas", "sympy")
COMPILED = ("numpy", "pandas", "pyarrow", "pydantic-core", "safetensors", "tokenizers")
SMALLER = (
    "click", "dill", "filelock", "fsspec", "jinja2", "mpmath", "multiprocess", "packaging", "psutil",
    "python-dateutil", "pyyaml", "regex", "tqdm", "xxhash", "zstandard",
)  # fmt: skip

# Linux distributions put the first seven into packages of their own, so they come and go under one version of Python.
# `pydoc_data` is a domain of its own, and `encodings` holds tables.
STDLIB_LEFT_OUT = frozenset(
    {"distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtledemo", "venv", "pydoc_data", "encodings"}
)

DEMO_EXTRA = install_hint("demo")
NEW_ENVIRONMENT = "install doremi with pip into a fresh virtual environment"


@dataclass(frozen=True)
class Domain:
    """One domain of the demo corpus.

    Attributes:
        name: the domain's name.
        max_bytes: UTF-8 bytes at which it is cut off, so that the corpus stays small and the mixture is known.
        texts: yields its texts, of any length, in a fixed order.
        remedy: what to do where it is missing.
    """

    name: str
    max_bytes: int
    texts: Callable[[], Iterator[str]]
    remedy: str = NEW_ENVIRONMENT


def _stdlib_files() -> Iterator[InstalledFile]:
    stdlib = Path(sysconfig.get_path("stdlib"))
    for name in sys.stdlib_module_names - STDLIB_LEFT_OUT:
        if (module := stdlib / f"{name}.py").is_file():
            yield InstalledFile(PurePosixPath(module.name), module)
        yield from folder_files(stdlib / name, "*.py")


def python_stdlib() -> Iterator[str]:
    """Python sources of the standard library."""
    return read_texts(file for file in _stdlib_files() if not is_test(file))


def python_libraries() -> Iterator[str]:
    """Python sources of libraries."""
    return read_texts(file for file in distribution_files(LIBRARIES, ".py") if not is_test(file))


def unit_tests() -> Iterator[str]:
    """Unit tests of the standard library, where Python comes with them, and of libraries."""
    in_stdlib = (*_stdlib_files(), *folder_files(Path(sysconfig.get_path("stdlib"), "test"), "*.py"))
    in_libraries = distribution_files((*LIBRARIES, *DOCUMENTED), ".py")
    return read_texts(filter(is_test, (*in_stdlib, *in_libraries)))


def c_headers() -> Iterator[str]:
    """C and C++ headers of Python, NumPy, PyTorch and Arrow."""
    python = Path(sysconfig.get_path("include"))
    # Only Python's own folders: others' headers may lie beside them. pyconfig.h is the one that `configure` wrote.
    own = (path for folder in (".", "cpython", "internal") for path in (python / folder).glob("*.h"))
    in_python = (InstalledFile(PurePosixPath("Include", path.relative_to(python).as_posix()), path) for path in own)
    others = distribution_files(("numpy", "pyarrow", "torch"), ".h", ".hpp", ".cuh")
    # torch generates ATen/ops, four nearly equal headers for each operator: 7,000 that would drown the written ones.
    written = (file for file in others if "ATen/ops/" not in str(file.key))
    return read_texts(file for file in (*in_python, *written) if not file.key.name.startswith("pyconfig"))


def type_stubs() -> Iterator[str]:
    """Type stubs of libraries."""
    return read_texts(distribution_files((*LIBRARIES, *DOCUMENTED), ".pyi"))


# A parser would be exact, but takes ten times as long and warns about others' escape sequences.
_DOCSTRING = re.compile(r'^[ \t]*[rR]?"""(.+?)"""', re.MULTILINE | re.DOTALL)


def docstrings() -> Iterator[str]:
    """The docstrings of each module of libraries that document themselves at length."""
    modules = (file for file in distribution_files(DOCUMENTED, ".py") if not is_test(file))
    for source in read_texts(modules):
        yield "\n\n".join(inspect.cleandoc(match) for match in _DOCSTRING.findall(source))


def licences() -> Iterator[str]:
    """Licences, and the descriptions that package indexes show."""
    names = sorted({*LIBRARIES, *DOCUMENTED, *COMPILED, *SMALLER})
    notices = ("licen", "notice", "copying", "authors")
    about = (file for file in distribution_files(names) if file.key.parts[0].endswith(".dist-info"))
    yield from read_texts(file for file in about if file.key.name.lower().startswith(notices))
    for name in names:
        try:
            yield str(metadata.metadata(name).json.get("description", ""))
        except metadata.PackageNotFoundError:
            continue


def language_reference() -> Iterator[str]:
    """The Python language reference, as ``help()`` shows it topic by topic."""
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ModuleNotFoundError:  # some distributions leave it out
        return
    yield from (topics[topic] for topic in sorted(topics))


CODE_POINTS_PER_TEXT = 64


def character_names() -> Iterator[str]:
    """The Unicode names of characters, but for the scripts whose names are only numbered."""
    for start in range(0, sys.maxunicode, CODE_POINTS_PER_TEXT):
        names = ((point, unicodedata.name(chr(point), "")) for point in range(start, start + CODE_POINTS_PER_TEXT))
        yield "\n".join(f"U+{point:04X} {name}" for point, name in names if name and not name.endswith(f"-{point:X}"))


def chat() -> Iterator[str]:
    """Small talk, questions and answers in many languages, as YAML."""
    return read_texts(distribution_files(("chatterbot-corpus",), ".yml"))


_QUOTED = r'"(?:[^"\\\n]|\\.)*"'
_TRANSLATION = re.compile(rf"^msgstr(?:\[\d\])? ((?:{_QUOTED}\s*)+)", re.MULTILINE)
_ESCAPE = re.compile(r"\\(.)")


def translated_strings(catalogue: str) -> Iterator[str]:
    """The translations in a gettext catalogue, without its header, which has an empty ``msgid`` and comes first."""
    for match in itertools.islice(_TRANSLATION.finditer(catalogue), 1, None):
        joined = "".join(line.strip()[1:-1] for line in match[1].splitlines())
        if joined:
            yield _ESCAPE.sub(lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], escape[1]), joined)


def translations() -> Iterator[str]:
    """Messages of a web framework in some hundred languages, one to a line."""
    for catalogue in read_texts(distribution_files(("django",), ".po")):
        yield "\n".join(translated_strings(catalogue))


WINDOWS_PER_BINARY = 16


def base64_of_binaries() -> Iterator[str]:
    """Junk as real crawls contain it: windows of compiled libraries in base64, 1 to 5 kB long."""
    binaries = shuffled(distribution_files(COMPILED, ".so", ".pyd", ".dylib"))
    for window, binary in itertools.product(range(WINDOWS_PER_BINARY), binaries):
        if binary.path.is_file():
            content = _read_window(binary, window)
            if content.count(0) < len(content) / 2:  # more is padding, which is easy rather than junk
                yield base64.b64encode(content).decode("ascii")


def _read_window(binary: InstalledFile, window: int) -> bytes:
    random = int(digest_bytes(f"{binary.key} {window}".encode()), 16)
    num_bytes = 750 + random % 3000  # base64 makes 4 characters of 3 bytes
    offset = (random >> 64) % max(1, binary.path.stat().st_size - num_bytes)
    with binary.path.open("rb") as file:
        file.seek(offset)
        return file.read(num_bytes)


DOMAINS = (
    Domain("python-libraries", 4_000_000, python_libraries),
    Domain("python-stdlib", 3_000_000, python_stdlib),
    Domain("unit-tests", 2_000_000, unit_tests),
    Domain("c-headers", 2_000_000, c_headers),
    Domain("docstrings", 1_500_000, docstrings),
    Domain("base64", 1_350_000, base64_of_binaries),
    Domain("type-stubs", 1_000_000, type_stubs),
    Domain("chat", 800_000, chat, remedy=DEMO_EXTRA),
    Domain("translations", 800_000, translations, remedy=DEMO_EXTRA),
    Domain("licences", 1_000_000, licences),
    Domain("language-reference", 600_000, language_reference),
    Domain("character-names", 300_000, character_names),
)
