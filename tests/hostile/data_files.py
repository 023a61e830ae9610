"""Input files that are damaged, foreign or hold what is no document."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import zstandard

BAD_RECORDS = (
    "{", "3", "[]", '"text"', "null", '{"text": 3, "domain": "a"}', '{"text": null, "domain": "a"}', '{"domain": "a"}',
    '{"text": "x"}', '{"text": "x", "domain": 3}', '{"text": "x", "domain": ""}', '{"text": "x", "domain": null}',
    '{"text": "\\ud800", "domain": "a"}', '{"text": "x", "domain": "\\udc80"}', '{"text": "x", "domain": ["a"]}',
    '{"text": "x", "domain": "' + "d" * 5000 + '"}', "[" * 50000, '{"text":' * 20000, "9" * 5000, "NaN", "\x00", "\x1b[2J",
    '{"text": {"a": "b"}, "domain": "a"}', '{"text": ["x"], "domain": "a"}', '{"input_ids": [1.5], "domain": "a"}',
    '{"input_ids": [-1], "domain": "a"}', '{"input_ids": [1e400], "domain": "a"}', '{"input_ids": [true], "domain": "a"}',
    '{"input_ids": [[1]], "domain": "a"}', '{"input_ids": "ab", "domain": "a"}', '{"input_ids": {}, "domain": "a"}',
    '{"input_ids": [' + "9" * 5000 + '], "domain": "a"}', '{"input_ids": [99999999], "domain": "a"}',
    '{"text": ' + "9" * 5000 + ', "domain": "a"}', '{"\\u001b[2J": "x", "domain": "a"}', '{"text": "x" "domain": "a"}',
    '{"text": "x", "domain": "a\\u0000b"} x', '{"text": "x", "domain": "CODE"}', '{"input_ids": [null], "domain": "a"}',
)  # fmt: skip


def bad_record(bench):
    """One bad line among good ones."""
    lines = [json.dumps(document) for document in bench.documents()]
    lines.insert(bench.rng.randrange(len(lines)), bench.pick(*BAD_RECORDS))
    bench.text("corpus.jsonl", "\n".join(lines))
    return bench.run(bench.pick("prepare", "run"))


def bad_bytes(bench):
    """Bytes that are no UTF-8, or a line that is cut."""
    data = bytearray("\n".join(json.dumps(d) for d in bench.documents()).encode())
    place = bench.rng.randrange(len(data))
    data[place : place + 1] = bench.pick(b"\xff", b"\xc3", b"\x80\x80", b"\xed\xa0\x80")
    bench.text("corpus.jsonl", bytes(data))
    return bench.run("prepare")


def foreign_content(bench):
    """What its name does not say."""
    suffix = bench.pick(".jsonl", ".json", ".parquet", ".jsonl.gz", ".jsonl.zst", ".txt", ".txt.gz", ".txt.zst")
    content = bench.pick(b"\x89PNG\r\n\x1a\n\x00", b"PAR1", b"PAR1" * 4, b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd",
                         bytes(range(128, 256)), b"\xff" * 100, b"PK\x03\x04aaaa", b"\x7fELF\x02", b"")  # fmt: skip
    bench.text(f"data/a/x{suffix}", content)
    return _of_folder(bench)


def truncated(bench):
    """A compressed or columnar file without its end."""
    plain = "".join(json.dumps(d) + "\n" for d in bench.documents()).encode()
    suffix, data = bench.pick(
        (".jsonl.gz", gzip.compress(plain, mtime=0)), (".jsonl.zst", zstandard.compress(plain)),
        (".parquet", parquet(bench, {"text": ["x y z"] * 50, "domain": ["a", "b"] * 25})),
    )  # fmt: skip
    path = bench.text(f"x{suffix}", bench.cut(data, least=5))
    return _of_path(bench, path)


def flipped_parquet(bench):
    """A parquet file with its footer spoiled."""
    data = bytearray(parquet(bench, {"text": [f"x {i} y z" for i in range(50)], "domain": ["a", "b"] * 25}))
    bench.text("x.parquet", bytes(data[:-12]) + bytes(bench.rng.randrange(256) for _ in range(8)) + data[-4:])
    return _of_path(bench, bench.folder / "x.parquet")


def wrong_columns(bench):
    """Columns of other types than text, ids and names."""
    columns = bench.pick(
        {"text": [1, 2], "domain": ["a", "b"]}, {"body": ["x"], "domain": ["a"]}, {"text": ["x"], "domain": [3]},
        {"text": [["x"]], "domain": ["a"]}, {"text": [None], "domain": ["a"]}, {"text": ["x"], "domain": [None]},
        {"input_ids": [[1.5]], "domain": ["a"]}, {"input_ids": [["a"]], "domain": ["a"]}, {"text": [b"\xff"], "domain": ["a"]},
        {"input_ids": [[-5]], "domain": ["a"]}, {"input_ids": [[2**62]], "domain": ["a"]}, {"text": [True], "domain": ["a"]},
        {"input_ids": [5], "domain": ["a"]}, {"text": [{"a": "b"}], "domain": ["a"]}, {"text": ["x"]}, {},
    )  # fmt: skip
    path = bench.text("x.parquet", parquet(bench, columns))
    return _of_path(bench, path)


def saved_dataset(bench):
    """A folder of ``save_to_disk`` with a broken state."""
    folder = bench.copy("saved")
    name = bench.pick("state.json", "dataset_info.json")
    path, kind = folder / name, bench.pick("type", "cut", "bytes", "outside", "no file", "arrow")
    if kind == "type":
        content = json.loads((folder / "state.json").read_text())
        content[bench.pick("_data_files", "_fingerprint")] = bench.pick(3, "x", [3], [{}], [{"filename": 3}], {"a": 1})
        if content["_data_files"] == json.loads((folder / "state.json").read_text())["_data_files"]:
            content["_data_files"] = bench.pick(3, "x", [3], [{}], [{"filename": 3}], {"a": 1}, True)
        (folder / "state.json").write_text(json.dumps(content))
    elif kind == "cut":
        path.write_bytes(bench.cut(path.read_bytes().rstrip()))
    elif kind == "bytes":
        path.write_bytes(bench.pick(b"\xff\xfe", b"[]", b"3", b"null", b"[" * 50000, b'"x"', b"9" * 5000))
    elif kind == "outside":
        files = [{"filename": bench.pick("../../nowhere.arrow", "/dev/zero", "x\0", "../corpus.jsonl", "x" * 5000)}]
        (folder / "state.json").write_text(json.dumps({"_data_files": files, "_fingerprint": "x", "_split": None}))
    elif kind == "no file":
        next(folder.glob("*.arrow")).unlink()
    else:
        arrow = next(folder.glob("*.arrow"))
        arrow.write_bytes(bench.pick(b"", b"\xff" * 100, arrow.read_bytes()[:100], arrow.read_bytes()[100:]))
    return _of_path(bench, folder, domain_field="domain")


def strange_folder(bench):
    """A folder whose entries are loops, dangling links, queues, or named in bytes."""
    folder = bench.folder / "data"
    (folder / "a").mkdir(parents=True)
    kind = bench.pick("loop", "dangling", "fifo", "not UTF-8", "parent", "long domain", "socket", "directory as file")
    if kind == "loop":
        (folder / "a" / "x.jsonl").symlink_to(folder / "a" / "x.jsonl")
    elif kind == "dangling":
        (folder / "a" / "x.jsonl").symlink_to("nowhere")
    elif kind == "fifo":
        os.mkfifo(folder / "a" / "x.jsonl")
    elif kind == "not UTF-8":
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).mkdir()
        _write(os.fsencode(folder) + b"/\xff\xfe/x.jsonl", b'{"text": "x"}')
    elif kind == "parent":
        (folder / "a" / "up").symlink_to(folder)
        bench.text("data/a/bad.jsonl", "{")
    elif kind == "long domain":
        bench.text(f"data/{'%' * 200}/x.jsonl", '{"text": "x"}')
    elif kind == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as listener:
            os.chdir(folder / "a")
            listener.bind("x.jsonl")
    else:
        (folder / "a" / "x.jsonl").mkdir()
    return _of_folder(bench)


def bad_domain_name(bench):
    """A name of a domain that no folder can have, or that differs from another one in case alone."""
    lines = [json.dumps(d) for d in bench.documents()]
    name = bench.pick("", " ", "\u0085", "d" * 300, "é" * 100, "\udc80", "Code", "PROSE", 3, None, [], {"a": 1}, True)
    lines.insert(3, json.dumps({"text": "x y z", "domain": name}))
    bench.text("corpus.jsonl", "\n".join(lines))
    return bench.run("prepare")


CLASSES = (bad_record, bad_bytes, foreign_content, truncated, flipped_parquet, wrong_columns, saved_dataset,
           strange_folder, bad_domain_name)  # fmt: skip


def parquet(bench, columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = bench.folder / "made.parquet"
    pq.write_table(pa.table(columns), path)
    data = path.read_bytes()
    path.unlink()
    return data


def _of_folder(bench):
    bench.recipe["corpus"]["inputs"] = [{"path": str(bench.folder / "data")}]
    return bench.run("prepare")


def _of_path(bench, path, **more):
    bench.recipe["corpus"]["inputs"] = [{"path": str(path), **({"domain_field": "domain"} | more)}]
    return bench.run("prepare")


def _write(path, data):
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, data)
    os.close(descriptor)
