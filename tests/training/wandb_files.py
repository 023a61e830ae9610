"""What W&B recorded offline: its file is a LevelDB log of protocol buffers."""

from __future__ import annotations

import json
import struct

BLOCK, HEADER, PREAMBLE = 32768, 7, 7  # bytes


def records(path):
    """The bytes of each record; one that does not fit into the rest of a block comes in pieces."""
    data, position, pieces = path.read_bytes(), PREAMBLE, b""
    while position < len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        pieces += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # whole, or the last piece
            yield pieces
            pieces = b""


def read(path):
    """(id, group, name) of a run, and what it logged, line by line."""
    from wandb.proto import wandb_internal_pb2

    run, history = None, []
    for content in records(path):
        record = wandb_internal_pb2.Record.FromString(content)
        if record.WhichOneof("record_type") == "run":
            run = (record.run.run_id, record.run.run_group, record.run.display_name)
        elif record.WhichOneof("record_type") == "history":
            items = record.history.item
            history.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    return run, history
