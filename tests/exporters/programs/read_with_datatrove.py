"""Folders of an export for nanotron, read as its data sets do: windows of 16 tokens."""

import json
import sys

from datatrove.utils.dataset import DatatroveFolderDataset


def windows(folder: str) -> list[list[int]]:
    dataset = DatatroveFolderDataset(folder, 15, filename_pattern="*.ds", recursive=False, token_size=2)
    return [dataset[i]["input_ids"].tolist() for i in range(len(dataset))]


print(json.dumps([windows(folder) for folder in sys.argv[1:]]))
