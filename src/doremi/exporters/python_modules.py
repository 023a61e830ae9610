"""Stacks that are configured in Python: a module with the numbers and one function that hands them over.

litdata (litgpt): ``CombinedStreamingDataset(weights=...)`` draws one sample at a time; with ``TokensLoader`` a sample
is a block of tokens, litgpt's sequence length + 1 (src/litdata/streaming/combined.py, bef28be; litgpt/data/tinyllama.py
of litgpt, 26857050). Without ``iterate_over_all=False`` it takes no weights; it ends when the first domain does, and
litgpt then begins it anew.

grain and torchtitan: ``mix`` interleaves elements in proportion to the weights, in whole multiples of a hundredth of
the smallest one (grain/_src/python/dataset/transformations/mix.py, f5dd0d8). torchtitan's ``DatasetMixConfig`` hands
its weights to it: packed data sets give fixed-length rows, unpacked ones documents ("Mixing datasets" in
torchtitan/components/data/README.md, b5bcd76c).

Hugging Face: ``interleave_datasets(probabilities=...)`` draws examples, one at a time, with these probabilities
(https://huggingface.co/docs/datasets/process#interleave). With "all_exhausted" a domain that ends begins again.
"""

from __future__ import annotations

from doremi import files
from doremi.exporters.describe import Export, comment, python_dict
from doremi.exporters.mixture import Mixture, Unit

_LITDATA = '''

def train_dataset(root, *, block_size, seed=42):
    """Samples of ``block_size`` tokens (litgpt: its sequence length + 1) from the folders below ``root``."""
    from litdata import CombinedStreamingDataset, StreamingDataset, TokensLoader

    domains = [
        StreamingDataset(f"{root}/{FOLDERS[name]}", item_loader=TokensLoader(block_size), shuffle=True, seed=seed)
        for name in WEIGHTS
    ]
    return CombinedStreamingDataset(domains, seed=seed, weights=list(WEIGHTS.values()), iterate_over_all=False)
'''

_GRAIN = '''

def torchtitan_mix(datasets):
    """A DatasetMixConfig of ``datasets``, {domain: configuration of a data set}."""
    from torchtitan.components.data import DatasetMixConfig, WeightedDataset

    return DatasetMixConfig(
        datasets=tuple(WeightedDataset(dataset=datasets[name], weight=weight) for name, weight in WEIGHTS.items())
    )


def grain_mix(datasets):
    """The mix of ``datasets``, {domain: grain.MapDataset}, or {domain: grain.IterDataset}."""
    import grain

    domains = [datasets[name] for name in WEIGHTS]
    maps = all(isinstance(domain, grain.MapDataset) for domain in domains)
    return (grain.MapDataset if maps else grain.IterDataset).mix(domains, weights=list(WEIGHTS.values()))
'''

_HUGGING_FACE = '''

def load(folder):
    """The data sets that `doremi corpus export` wrote into ``folder``, by domain."""
    from datasets import load_from_disk

    return {name: load_from_disk(f"{folder}/train/{FOLDERS[name]}") for name in PROBABILITIES}


def interleave(datasets, *, seed, stopping_strategy="all_exhausted"):
    """One data set that draws from ``datasets``, {domain: Dataset or IterableDataset}."""
    from datasets import interleave_datasets

    return interleave_datasets(
        [datasets[name] for name in PROBABILITIES],
        probabilities=list(PROBABILITIES.values()),
        seed=seed,
        stopping_strategy=stopping_strategy,
    )
'''


def litgpt(mixture: Mixture, unit: Unit) -> Export:
    """WEIGHTS, FOLDERS and train_dataset(root, block_size=...)."""
    folders = {domain.name: files.encode_name(domain.name) for domain in mixture.domains}
    usage = [
        "use: train_dataset(...) in a DataModule of litgpt; FOLDERS are those of litdata.optimize with TokensLoader"
    ]
    text = comment(mixture, unit, usage) + python_dict("WEIGHTS", mixture.draws(unit))
    return Export({"litgpt_mixture.py": text + python_dict("FOLDERS", folders) + _LITDATA}, mixture.warnings)


def torchtitan(mixture: Mixture, unit: Unit) -> Export:
    """WEIGHTS, torchtitan_mix(datasets) and grain_mix(datasets)."""
    order = "pack each domain, then mix" if unit == "sequences" else "mix the documents of all domains, then pack"
    usage = [f"use: torchtitan_mix(...) as the data set of GrainDataLoader, or grain_mix(...); {order}"]
    text = comment(mixture, unit, usage) + python_dict("WEIGHTS", mixture.draws(unit)) + _GRAIN
    return Export({"torchtitan_mixture.py": text}, mixture.warnings)


def hugging_face(mixture: Mixture, unit: Unit) -> Export:
    """PROBABILITIES, FOLDERS, load(folder) and interleave(datasets, seed=...)."""
    from doremi.corpus.storing.export import folder_name  # half a second, which every command would pay

    rows = "documents" if unit == "documents" else "chunks"
    folders = {domain.name: folder_name(domain.name) for domain in mixture.domains}
    usage = [
        f"use: interleave(load(FOLDER), seed=0) after `doremi corpus export CORPUS --rows {rows} --out FOLDER`, or on "
        f"your own data sets of {unit}"
    ]
    text = comment(mixture, unit, usage) + python_dict("PROBABILITIES", mixture.draws(unit))
    return Export({"hf_mixture.py": text + python_dict("FOLDERS", folders) + _HUGGING_FACE}, mixture.warnings)
