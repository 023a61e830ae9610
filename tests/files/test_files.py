"""Files are whole or absent, whatever happens while they are written; names cannot leave their folder."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi import files
from doremi.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError, match="crash"), files.atomic_path(path) as beside:  # noqa: PT012
        beside.write_text("half")
        raise RuntimeError("crash")
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_file_is_replaced_not_rewritten(tmp_path):
    """Whoever has the old file open goes on reading the old content, whole."""
    files.write_text(tmp_path / "x", "old")
    with (tmp_path / "x").open() as reader:
        files.write_text(tmp_path / "x", "new, and longer")
        assert reader.read() == "old"
    assert (tmp_path / "x").read_text() == "new, and longer"


def test_a_place_that_cannot_be_written_is_the_users_to_change(tmp_path):
    (tmp_path / "file").touch()
    for path in ("file/x.json", "file/deeper/x.json"):
        with pytest.raises(InputError, match=r"file.*: cannot be written: .* choose another place"):
            files.write_json(tmp_path / path, {})
    with pytest.raises(InputError, match=r"file: cannot be written: File exists"):
        files.make_folder(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file"]


def test_a_full_disk_is_not_the_place(tmp_path):
    """It goes on once there is room: exit code 1, see `doremi.cli.main`."""
    with pytest.raises(OSError, match="No space left") as caught, files.refusal_reported(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not isinstance(caught.value, InputError)


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_digests_do_not_depend_on_key_order_and_see_every_byte(tmp_path):
    assert files.digest_json({"a": 1, "b": [2]}) == files.digest_json({"b": [2], "a": 1})
    assert files.digest_json({"a": 1}) != files.digest_json({"a": 2})
    data = bytes(range(256)) * 40_000  # over two blocks
    (tmp_path / "f").write_bytes(data)
    assert files.digest_file(tmp_path / "f") == files.digest_bytes(data)


def test_marker(tmp_path):
    assert files.read_marker(tmp_path) is None
    files.write_marker(tmp_path, {"digest": "d"})
    assert files.read_marker(tmp_path) == {"digest": "d"}


@settings(derandomize=True)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip))
def test_encoded_names_are_reversible_single_components(name):
    encoded = files.encode_name(name)
    assert files.decode_name(encoded) == name
    assert "/" not in encoded
    assert encoded not in (".", "..")
    assert encoded.isascii()


@pytest.mark.parametrize("name", ["../../etc", "a/b", "CON", "..", ".hidden", "a\x00b", "Wikipedia (en)"])
def test_hostile_names_stay_inside(tmp_path, name):
    path = tmp_path / files.encode_name(name)
    path.mkdir()
    assert path.resolve().parent == tmp_path.resolve()


def test_impossible_names():
    with pytest.raises(InputError, match="is empty"):
        files.encode_name("  ")
    with pytest.raises(InputError, match="500 bytes once percent-encoded, at most 200"):
        files.encode_name("x" * 500)
    with pytest.raises(InputError, match=r"domain name 'a\\ud800' is no valid Unicode; rename the domain"):
        files.encode_name("a\ud800")
