"""Near-duplicate documents by MinHash, with datatrove's blocks over a folder of scratch files.

    drop = near_duplicates(texts, Path("scratch"))  # bool [documents], True for those to leave out

Documents that share most of their runs of five words are near-duplicates of each other; of a cluster the first in
reading order is kept. In parts, for several processes::

    search = NearDuplicates(Path("scratch"))
    counts = [search.sign(unit, texts_of(unit)) for unit in range(units)]  # each call may be in another process
    drops = search.find(counts)  # one bool array a unit

Held in memory are one document, the signatures of one unit in one of the 14 buckets (68 bytes a document), and 9 bytes
a document of the whole corpus. Scratch takes 950 bytes a document. Results depend on the texts, their order and the
settings, not on how they are cut into units or on the number of processes.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from metro_t0.data.cleaning import require_libraries
from metro_t0.data.plain_words import plain_words

_UNIT_DOCUMENTS = 50_000
_BLOCK_SHINGLES = 1 << 14
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Similarity:
    """What counts as near; the values are those of FineWeb.

    Two documents whose sets of runs of ``run_words`` words overlap by a share s (intersection over union) are found
    with probability ``1 - (1 - s ** hashes) ** buckets``: 92 % at 0.8, half at 0.71, 5 % at 0.5.

    Attributes:
        run_words: words of a run; shorter documents are near nothing.
        buckets: signatures of a document, of which two documents must share one.
        hashes: hashes of a signature.
        seed: of the hash functions.
    """

    run_words: int = 5
    buckets: int = 14
    hashes: int = 8
    seed: int = 1

    def check(self) -> None:
        """Raise a ValueError if a setting is wrong or a library is missing."""
        for name in ("run_words", "buckets", "hashes"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} of the near-duplicate search must be 1 or more, not {getattr(self, name)}"
                )
        require_libraries("the near-duplicate search", "datatrove", "regex", "xxhash")


@dataclass(frozen=True)
class NearDuplicates:
    """The search in two steps; picklable.

    Attributes:
        scratch: a folder of its own, made when needed; :meth:`find` takes it away.
        similarity: what counts as near.
    """

    scratch: Path
    similarity: Similarity = Similarity()

    def sign(self, unit: int, texts: Iterable[str]) -> int:
        """Write the signatures of a unit's documents and count the documents; a unit may be signed again."""
        self.similarity.check()
        from datatrove.data import Document

        documents = 0

        def stream() -> Iterator[Document]:
            nonlocal documents
            for text in texts:
                documents += 1
                yield Document(text=text, id="")

        with _quiet():
            _signature_block(str(self.scratch / "signatures"), self._config()).run(stream(), rank=unit)
        return documents

    def find(self, counts: Sequence[int], *, workers: int = 1) -> list[npt.NDArray[np.bool_]]:
        """Which documents to leave out, once every unit is signed.

        Args:
            counts: documents of units 0, 1, ... as :meth:`sign` returned them.
            workers: processes that compare signatures.

        Returns:
            For each unit bool [documents], True for a document near an earlier one.
        """
        from datatrove.executor import LocalPipelineExecutor
        from datatrove.pipeline.dedup import MinhashDedupBuckets

        self.similarity.check()
        pairs, logs = self.scratch / "pairs", self.scratch / "logs"
        for folder in (pairs, logs):
            shutil.rmtree(folder, ignore_errors=True)
        with _quiet():
            LocalPipelineExecutor(
                [MinhashDedupBuckets(str(self.scratch / "signatures"), str(pairs), config=self._config())],
                tasks=self.similarity.buckets,
                workers=workers,
                logging_dir=str(logs),
            ).run()
        first = np.concatenate(([0], np.cumsum(np.asarray(counts, np.int64))))
        parents = np.arange(first[-1], dtype=np.int64)
        for path in sorted(pairs.glob("*.dups")):
            _join(parents, first, path)
        drop = parents != np.arange(len(parents))
        shutil.rmtree(self.scratch, ignore_errors=True)
        return [drop[start:end] for start, end in pairwise(first)]

    def _config(self) -> Any:
        from datatrove.pipeline.dedup import MinhashConfig

        return MinhashConfig(
            n_grams=self.similarity.run_words,
            num_buckets=self.similarity.buckets,
            hashes_per_bucket=self.similarity.hashes,
            seed=self.similarity.seed,
        )


def near_duplicates(
    texts: Iterable[str], scratch: Path, *, similarity: Similarity | None = None, workers: int = 1
) -> npt.NDArray[np.bool_]:
    """Which of the texts are near an earlier one: bool [documents], True for those to leave out.

    Args:
        texts: read once, in order.
        scratch: a folder that does not exist or is empty; taken away at the end.
        similarity: what counts as near.
        workers: processes that compare signatures.

    Raises:
        ValueError: a setting is wrong, datatrove is not installed, or the folder holds something.
    """
    if scratch.exists() and any(scratch.iterdir()):
        raise ValueError(f"{scratch}: the folder for scratch files is not empty")
    search = NearDuplicates(scratch, similarity or Similarity())
    search.similarity.check()
    counts: list[int] = []
    rest = iter(texts)
    try:
        while count := search.sign(len(counts), islice(rest, _UNIT_DOCUMENTS)):
            counts.append(count)
        return np.concatenate([np.zeros(0, np.bool_), *search.find([*counts, 0], workers=workers)])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _signature_block(folder: str, config: Any) -> Any:
    from datatrove.pipeline.dedup import MinhashDedupSignature

    class Signatures(MinhashDedupSignature):
        """Datatrove's, with the memory of a long document bounded: it takes 900 bytes a word at once."""

        def get_signature(self, shingles: npt.NDArray[np.uint64]) -> list[list[int]]:
            blocks = range(0, len(shingles), _BLOCK_SHINGLES)
            least = [
                np.array(super(Signatures, self).get_signature(shingles[at : at + _BLOCK_SHINGLES]))
                for at in blocks
            ]
            return np.minimum.reduce(least).tolist()

    return Signatures(folder, config=config, language=plain_words())


def _join(parents: npt.NDArray[np.int64], first: npt.NDArray[np.int64], path: Path) -> None:
    """Join the clusters of each pair in a file of (unit, document, unit, document); the earliest stands for them."""

    def root(document: int) -> int:
        while parents[document] != document:
            parents[document] = parents[parents[document]]
            document = int(parents[document])
        return document

    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            for unit, document, other_unit, other in struct.iter_unpack("<4I", block):
                one, two = root(int(first[unit]) + document), root(int(first[other_unit]) + other)
                parents[max(one, two)] = min(one, two)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without datatrove's log lines and progress bars on the terminal."""
    from loguru import logger

    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")
