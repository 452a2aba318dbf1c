"""Sums before products: every child that enters a product gets a sum of its own."""

from dspc_jax.structure.region_graph import Partition, RegionGraph


def sums_first(graph: RegionGraph) -> RegionGraph:
    """The graph in which each product has a dense sum over each of its factors.

    A circuit multiplies first and sums then, region by region. With a sum layer over
    every input region, and a copy of a region (with sums of its own, over the same
    products) for each product that it enters, every factor of every product is the sum
    that this product alone has: the ``cp`` layer of the literature, up to the sums over
    the root's products.

    Args:
        graph: any.

    Returns:
        The graph, what is added at the ends of its lists. A tree only gets sum layers
        over its input regions. An only child, which is no factor, gets none.

    References:
        Mari, Vessio and Vergari, "Unifying and understanding overparameterized circuit
        representations via low-rank tensor decompositions", TPM 2023 (CP and CP-T).
    """
    scopes = list(graph.scopes)
    added: list[tuple[int, int]] = []  # a new region, and the region that it copies
    entered: set[int] = set()

    def factor(region: int) -> int:
        is_input = not graph.partitions_of[region]
        if not is_input and region not in entered:
            entered.add(region)
            return region
        scopes.append(graph.scopes[region])
        added.append((len(scopes) - 1, region))
        return len(scopes) - 1

    children = [
        tuple(map(factor, p.children)) if len(p.children) > 1 else p.children
        for p in graph.partitions
    ]
    partitions = [
        Partition(p.region, own)
        for p, own in zip(graph.partitions, children, strict=True)
    ]
    for copy, region in added:
        owned = graph.partitions_of[region]
        products = [children[n] for n in owned] or [(region,)]
        partitions += [Partition(copy, own) for own in products]
    return RegionGraph(graph.num_variables, tuple(scopes), tuple(partitions))
