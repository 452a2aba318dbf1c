"""Sum layers over input regions that meet inner ones."""

from dspc_jax.structure.region_graph import Partition, RegionGraph


def lift_inputs(graph: RegionGraph) -> RegionGraph:
    """Puts a sum layer over each input region that meets an inner region in a product.

    The factors of every product are then all leaves, or all sums.

    Args:
        graph: any.

    Returns:
        The graph, what is added at the ends of its lists; ``graph`` itself if no
        product has factors of both kinds.
    """
    scopes, partitions = list(graph.scopes), []
    lifted: dict[int, int] = {}
    for p in graph.partitions:
        is_input = [not graph.partitions_of[child] for child in p.children]
        if any(is_input) and not all(is_input):
            for child in p.children:
                if not graph.partitions_of[child] and child not in lifted:
                    lifted[child] = len(scopes)
                    scopes.append(graph.scopes[child])
            p = Partition(p.region, tuple(lifted.get(c, c) for c in p.children))
        partitions.append(p)
    if not lifted:
        return graph
    partitions += [Partition(region, (child,)) for child, region in lifted.items()]
    return RegionGraph(graph.num_variables, tuple(scopes), tuple(partitions))
