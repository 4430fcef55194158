"""Bits that say the same: equal, or each other's opposite."""

import numpy as np

from bae_lens.analyze.counts import BitCounts
from bae_lens.analyze.tree import BitTree, tree_of_features


def merged_duplicates(counts: BitCounts, *, tolerance: float = 0.0) -> BitTree:
    """The tree in which every duplicate hangs below the first bit that it equals, and nothing else has a parent.

    So a duplicate costs what is left of it once that bit is known: nothing, where they agree. Of features of nested bits their
    first bits are compared; the others hang below those as in `fit_tree`.

    Args:
        tolerance: Share of the vectors on which duplicates may disagree.

    Raises:
        ValueError: If pairs were not counted, or the tolerance is not from 0 to below 1/2.
    """
    if counts.pairs is None:
        raise ValueError("finding duplicates needs counts of pairs: count the codes with pairs=True")
    if not 0 <= tolerance < 0.5:
        raise ValueError(f"the tolerance must be from 0 to below 0.5, got {tolerance}")
    n = counts.tokens
    ones = counts.ones[:: counts.bits_per_feature].numpy()
    pairs = counts.pairs.symmetric()
    keeper = np.full(len(ones), -1)
    both = ones.copy()
    kept = (ones > 0) & (ones < n)
    for feature in np.flatnonzero(kept).tolist():
        row = np.zeros(len(ones), np.int64)
        span = slice(pairs.indptr[feature], pairs.indptr[feature + 1])
        row[pairs.indices[span]] = pairs.data[span]
        differ = (ones + ones[feature] - 2 * row)[:feature]
        same = kept[:feature] & (np.minimum(differ, n - differ) <= tolerance * n)
        if same.any():
            keeper[feature] = int(np.argmax(same))
            kept[feature], both[feature] = False, row[keeper[feature]]
    return tree_of_features(keeper, np.argsort(keeper >= 0, kind="stable"), counts, both)
