"""Products of two in place of larger ones, for layers that have no others."""

from dspc_jax.structure.region_graph import Partition, RegionGraph


def in_pairs(graph: RegionGraph) -> RegionGraph:
    """Makes products of two of larger ones: halves of the children, halved again.

    Args:
        graph: any.

    Returns:
        The graph, what is added at the ends of its lists; ``graph`` itself if it has no
        product of more than two.
    """
    scopes, added = list(graph.scopes), []

    def pair(children: tuple[int, ...]) -> tuple[int, ...]:
        if len(children) <= 2:
            return children
        middle = (len(children) + 1) // 2
        return joined(children[:middle]), joined(children[middle:])

    def joined(children: tuple[int, ...]) -> int:
        if len(children) == 1:
            return children[0]
        region = len(scopes)
        scopes.append(tuple(sorted(v for child in children for v in scopes[child])))
        added.append(Partition(region, pair(children)))
        return region

    partitions = [Partition(p.region, pair(p.children)) for p in graph.partitions]
    if not added:
        return graph
    return RegionGraph(graph.num_variables, tuple(scopes), (*partitions, *added))
