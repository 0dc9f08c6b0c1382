"""An index of item vectors: which items have the largest inner products with a state, without computing all of them.

An inverted file of faiss: items lie in lists around the centres of a k-means clustering, and a search reads the lists
whose centres are nearest. Half precision, because whoever searches computes the scores of what was found anew. The
file is memory-mapped, so workers share its pages.

faiss is the extra `index`: only artifacts with many items need it, so it is imported only for them.

Shapes: V catalogue with padding, D embedding, B states.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LISTS_PER_ROOT = 4
"""Lists per square root of the number of items: reading the centres and reading lists then take about as long."""
ITEMS_PER_LIST = 40
"""Shorter lists cost more to visit than to read, and k-means wants as many points for a centre."""
ITEMS_READ = 4000
"""A search reads as many lists as hold about so many items: recall@10 is above 0.99 on clustered vectors, see
docs/benchmarks/serving.md."""
ITERATIONS = 8


class ItemIndex:
    """A built or read index. Safe for concurrent searches."""

    def __init__(self, index: Any) -> None:
        """index: a faiss inverted file whose ids are item indices."""
        self._faiss = _faiss()
        self._index = index

    @property
    def num_items(self) -> int:
        """Items 1…num_items are in it."""
        return int(self._index.ntotal)

    @property
    def num_lists(self) -> int:
        return int(self._index.nlist)

    @property
    def probes(self) -> int:
        """Lists that a search reads where nothing else is said."""
        return min(self.num_lists, math.ceil(ITEMS_READ * self.num_lists / max(1, self.num_items)))

    def search(self, states_BD: NDArray[np.float32], n: int, *, probes: int | None = None) -> NDArray[np.int64]:
        """(B, min(n, num_items)): the items with the largest inner products among the lists that are read, by falling
        product. More than `probes` lists are read where those hold too few.
        """
        n = min(n, self.num_items)
        probes = probes or self.probes
        items_BN: NDArray[np.int64]
        while True:
            parameters = self._faiss.SearchParametersIVF(nprobe=min(probes, self.num_lists))
            _, items_BN = self._index.search(states_BD, n, params=parameters)
            # Places without an item hold −1, and they are the last ones.
            if items_BN[:, -1].min() > 0 or probes >= self.num_lists:
                return items_BN
            probes *= 2

    def write(self, path: Path) -> None:
        self._faiss.write_index(self._index, str(path))

    @classmethod
    def read(cls, path: Path) -> "ItemIndex":
        """Memory-mapped.

        Raises:
            ImportError: faiss is not installed.
            RuntimeError: the file is no such index.
        """
        faiss = _faiss()
        faiss.omp_set_num_threads(1)  # one thread a worker: a second one would wait for the other workers' cores
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP))

    @classmethod
    def build(cls, item_vectors_VD: NDArray[np.float32], *, num_lists: int | None = None, seed: int = 0) -> "ItemIndex":
        """Of all rows but the padding; some 20 s of one core at a million items with D = 64.

        num_lists: None: as many as `LISTS_PER_ROOT` and `ITEMS_PER_LIST` say.

        Raises:
            ImportError: faiss is not installed.
        """
        faiss = _faiss()
        points_XD = np.ascontiguousarray(item_vectors_VD[1:], dtype=np.float32)
        num_points, dim = points_XD.shape
        most = num_points / ITEMS_PER_LIST
        num_lists = num_lists or max(1, math.floor(min(LISTS_PER_ROOT * math.sqrt(num_points), most)))
        index = faiss.index_factory(dim, f"IVF{num_lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter, index.cp.seed = ITERATIONS, seed
        index.cp.spherical = True  # popular items are long, and a search wants large products, not near neighbours
        rng = np.random.default_rng(seed)
        sample = np.sort(rng.choice(num_points, min(num_points, ITEMS_PER_LIST * num_lists), replace=False))
        index.train(points_XD[sample])
        index.add_with_ids(points_XD, np.arange(1, num_points + 1))
        return cls(index)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "approximate ranking needs faiss: pip install 'segue[index]', or set SEGUE_RANKING=exact"
        ) from error
    return faiss
