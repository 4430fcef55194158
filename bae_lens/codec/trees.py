"""Trees of bits, each told by its parent: their depth, how often a bit is on, and the same tree with its root in the middle."""

import numpy as np
from jaxtyping import Float, Int

NO_PARENT = -1


def depths(parent: Int[np.ndarray, " bits"]) -> Int[np.ndarray, " bits"]:
    """How many bits come before each: 0 without a parent.

    Raises:
        ValueError: If parents go in a circle.
    """
    depth, above = np.zeros(len(parent), dtype=np.int64), parent.copy()
    for _ in range(len(parent)):
        has_more = above != NO_PARENT
        if not has_more.any():
            return depth
        depth += has_more
        above = np.where(has_more, parent[above], NO_PARENT)
    if (above != NO_PARENT).any():
        raise ValueError("bits are given each other in a circle")
    return depth


def stages(parent: Int[np.ndarray, " bits"], known: Int[np.ndarray, " bits"]) -> Int[np.ndarray, " bits"]:
    """When each bit is coded: after its parent. Bits whose parents are known beforehand come after all others.

    Raises:
        ValueError: If parents go in a circle.
    """
    free = known == NO_PARENT
    depth = depths(np.where(free, parent, NO_PARENT))
    return np.where(free, depth, depth.max(initial=0) + depths(known))


def shares(parent: Int[np.ndarray, " bits"], p_one_given: Float[np.ndarray, "bits 2"]) -> Float[np.ndarray, " bits"]:
    """How often each bit is on under a tree."""
    depth, on = depths(parent), p_one_given[:, 0].copy()
    for level in range(1, 1 + int(depth.max(initial=0))):
        here = np.flatnonzero(depth == level)
        above = on[parent[here]]
        on[here] = p_one_given[here, 0] * (1 - above) + p_one_given[here, 1] * above
    return on


def shallow(
    parent: Int[np.ndarray, " bits"], p_one_given: Float[np.ndarray, "bits 2"], known: Int[np.ndarray, " bits"]
) -> tuple[Int[np.ndarray, " bits"], Float[np.ndarray, "bits 2"]]:
    """The same distribution with the root of each tree in its middle, and its probabilities: at most half the depth and one.

    Bits of equal depth and probability are coded together, so a tree of half the depth has about half the sequences.

    Args:
        known: Parents that stay; -1 where one may change.
    """
    middle = np.where(known == NO_PARENT, _rooted_in_the_middle(np.where(known == NO_PARENT, parent, NO_PARENT)), parent)
    on, p = shares(parent, p_one_given), p_one_given.copy()
    turned = np.flatnonzero((middle != NO_PARENT) & (middle != parent))
    child = middle[turned]  # was the child, and is the parent now
    p[turned, 1] = p_one_given[child, 1] * on[turned] / on[child]
    p[turned, 0] = (1 - p_one_given[child, 1]) * on[turned] / (1 - on[child])
    p[middle == NO_PARENT, 0] = on[middle == NO_PARENT]
    return middle, p


def _rooted_in_the_middle(parent: Int[np.ndarray, " bits"]) -> Int[np.ndarray, " bits"]:
    """Leaves fall off, round by round; what a leaf hung on is its parent. The last of a tree is its root."""
    child = np.flatnonzero(parent != NO_PARENT)
    degree, sums = np.zeros(len(parent), dtype=np.int64), np.zeros(len(parent), dtype=np.int64)
    for one, other in ((child, parent[child]), (parent[child], child)):
        np.add.at(degree, one, 1)
        np.add.at(sums, one, other)
    found = np.full(len(parent), NO_PARENT)
    while len(leaves := np.flatnonzero(degree == 1)):
        hung_on = sums[leaves]  # of one neighbour the sum is its number
        last = (degree[hung_on] == 1) & (leaves < hung_on)  # two are left: the first is the root
        leaves, hung_on = leaves[~last], hung_on[~last]
        found[leaves] = hung_on
        degree[leaves] = 0
        np.subtract.at(degree, hung_on, 1)
        np.subtract.at(sums, hung_on, leaves)
    return found
