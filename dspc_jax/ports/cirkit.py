"""Region graphs that cirkit has written.

References:
    cirkit, https://github.com/april-tools/cirkit, ``RegionGraph.dump`` of 2026-05.
"""

import json
import os
import pathlib
from typing import Any

from dspc_jax.arguments import shown
from dspc_jax.structure.region_graph import Partition, RegionGraph


def region_graph_from_json(path: str | os.PathLike[str]) -> RegionGraph:
    """Reads a region graph that cirkit's ``RegionGraph.dump(path)`` wrote.

    With ``CircuitConfig(graph, ..., sum_layer=...)`` it is the structure of a circuit;
    the names of the sum layers are cirkit's (``"cp_t"`` is its ``cp-t``).

    Args:
        path: of the file: ``regions`` (name to ``scope``), ``graph`` (of each partition
            ``output`` and ``inputs``), and one of ``roots``. ``~`` is the home folder.

    Returns:
        The graph, with regions and partitions in the file's order.

    Raises:
        ValueError: not such a file, or no smooth and decomposable graph with one root
            over the variables from 0 on; one line.
        OSError: the file cannot be read.
    """
    text = pathlib.Path(os.path.expanduser(path)).read_bytes()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8
        raise ValueError(f"the file must be JSON: {str(error)[:100]}") from None
    regions = _part(content, "regions", dict)
    partitions, roots = _part(content, "graph", list), _part(content, "roots", list)
    numbers = {name: number for number, name in enumerate(regions)}

    def number(name: Any) -> int:
        """Partitions have numbers where regions have text."""
        if isinstance(name, bool) or str(name) not in numbers:
            raise ValueError(f"regions must have all that is named, got {shown(name)}")
        return numbers[str(name)]

    scopes = [_scope(_part(region, "scope", list)) for region in regions.values()]
    variables = {v for scope in scopes for v in scope if type(v) is int}
    num_variables = len(variables)
    if others := variables - set(range(num_variables)):
        raise ValueError(
            f"variables must be 0 to {num_variables - 1}, got {shown(min(others))}"
        )
    graph = RegionGraph(
        max(num_variables, 1),
        scopes,
        [
            Partition(
                number(_part(each, "output", int | str)),
                [number(name) for name in _part(each, "inputs", list)],
            )
            for each in partitions
        ],
    )
    if [number(root) for root in roots] != [graph.root]:
        raise ValueError(
            f"roots must be the one region that no other has, got {shown(roots)}"
        )
    return graph


def _scope(variables: list[Any]) -> list[Any]:
    """In ascending order; a file's are those of a set."""
    if all(type(v) is int for v in variables):
        return sorted(variables)
    return variables  # and the graph says what is wrong


def _part(content: Any, name: str, kind: Any) -> Any:
    """A part of an object that must be there."""
    if not isinstance(content, dict) or not isinstance(content.get(name), kind):
        raise ValueError(
            f"the file must be a region graph of cirkit, got no {name} in "
            f"{shown(content)}"
        )
    return content[name]
