"""Region graphs of images whose pixels are several variables each."""

from dspc_jax.structure.region_graph import RegionGraph, RegionGraphBuilder


def with_channels(graph: RegionGraph, num_channels: int) -> RegionGraph:
    """The region graph in which every variable has become its channels.

    Variable v becomes the variables ``v * C .. v * C + C - 1``. An input region becomes
    the product of C input regions, one for each channel of its variables.

    Args:
        graph: of pixels.
        num_channels: C.

    Returns:
        The graph; ``graph`` itself for one channel.
    """
    if num_channels == 1:
        return graph
    builder = RegionGraphBuilder(graph.num_variables * num_channels)

    def of_channels(scope, channels):
        return [v * num_channels + c for v in scope for c in channels]

    regions = {graph.root: 0}
    for region, scope in enumerate(graph.scopes):
        if region != graph.root:
            whole = of_channels(scope, range(num_channels))
            regions[region] = builder.add_region(whole)
    for p in graph.partitions:
        builder.add_partition(*(regions[r] for r in (p.region, *p.children)))
    for region, scope in enumerate(graph.scopes):
        if not graph.partitions_of[region]:
            parts = [of_channels(scope, [c]) for c in range(num_channels)]
            children = map(builder.add_region, parts)
            builder.add_partition(regions[region], *children)
    return builder.build()
