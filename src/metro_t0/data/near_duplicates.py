"""Near-duplicate documents by MinHash, computed by datatrove.

drop = near_duplicates(texts, Path("scratch"))      # True where an earlier document is nearly the same

Signatures lie in files under ``scratch``; memory holds those of one part of the documents and, at the end, the
pairs that met. The result is a function of texts, order and settings.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

_DOCUMENTS_A_PART = 200_000


@dataclass(frozen=True)
class MinHash:
    """Two documents of similarity ``s`` (of their sets of word ``n_grams``) meet with probability
    ``1 - (1 - s^hashes_per_bucket)^buckets``: 0.92 at 0.8 and 0.05 at 0.5 as set here.
    """

    n_grams: int = 5
    buckets: int = 14
    hashes_per_bucket: int = 8
    seed: int = 1


def check_installed(*, wanted: bool = True) -> None:
    """Raise ValueError where near-duplicates are ``wanted`` and datatrove is not there."""
    if wanted and importlib.util.find_spec("datatrove") is None:
        raise ValueError("near-duplicates need datatrove: pip install 'metro-t0[corpora]'")


def near_duplicates(texts: Iterable[str], scratch: Path, settings: MinHash | None = None) -> np.ndarray:
    """Mark all but the first document of each cluster of near-duplicates, ``[documents]`` bool, True to drop.

    ``scratch`` is a folder that does not exist yet or is empty. Documents of fewer than ``n_grams`` words are kept.

    Raises:
        ValueError: datatrove is not installed, or ``scratch`` is not empty.
    """
    check_installed()
    from datatrove.data import Document
    from datatrove.pipeline.dedup import minhash
    from datatrove.utils.hashing import HashConfig

    from metro_t0.data.datatrove_words import PlainWords

    if scratch.exists() and any(scratch.iterdir()):
        raise ValueError(f"{scratch}: the folder for near-duplicates is not empty; empty it or name another")
    chosen = settings or MinHash()
    config = minhash.MinhashConfig(
        n_grams=chosen.n_grams,
        num_buckets=chosen.buckets,
        hashes_per_bucket=chosen.hashes_per_bucket,
        seed=chosen.seed,
        # datatrove 0.10's xxhash hands over text, which xxhash 4 refuses.
        hash_config=HashConfig(hash_fc="sha1"),
    )
    folders = [str(scratch / name) for name in ("signatures", "buckets", "clusters")]
    counts: list[int] = []
    for part in _parts(iter(texts)):
        counts.append(0)

        def numbered(part: Iterator[str] = part) -> Iterator[Document]:
            for text in part:
                counts[-1] += 1
                yield Document(text=text, id=str(counts[-1]))

        step = minhash.MinhashDedupSignature(folders[0], config=config, language=PlainWords())
        step.run(numbered(), rank=len(counts) - 1, world_size=1)
    for bucket in range(chosen.buckets if counts else 0):
        minhash.MinhashDedupBuckets(folders[0], folders[1], config=config).run(None, bucket, chosen.buckets)
    if counts:
        cluster = minhash.MinhashDedupCluster(folders[1], folders[2], config=config, save_cluster_id=True)
        cluster.run(None, 0, 1)
    return _all_but_first(scratch / "clusters", counts)


def _parts(texts: Iterator[str]) -> Iterator[Iterator[str]]:
    for first in texts:
        yield chain([first], islice(texts, _DOCUMENTS_A_PART - 1))


def _all_but_first(folder: Path, counts: list[int]) -> np.ndarray:
    # datatrove keeps the root of its union, which need not be the first document: its choice is not read.
    drop = np.zeros(sum(counts), bool)
    offset, found = 0, [np.zeros((0, 2), np.int64)]
    for part, count in enumerate(counts):
        path = folder / f"{part:06d}.clusters"
        if path.exists():
            found.append(np.fromfile(path, "<u4").reshape(-1, 2) + np.array([offset, 0]))
        offset += count
    members = np.concatenate(found)
    members = members[np.argsort(members[:, 0])]
    firsts = np.unique(members[:, 1], return_index=True)[1]
    drop[members[:, 0]] = True
    drop[members[firsts, 0]] = False
    return drop
