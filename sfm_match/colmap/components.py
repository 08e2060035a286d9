"""Images that accepted pairs connect: each such set is mapped on its own."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pairs.graph import Graph
from sfm_match.colmap.queries import frames, verified_inliers


@dataclass(frozen=True)
class Component:
    """Images that accepted pairs connect."""

    names: list[str]
    held: int  # images that two accepted pairs or more hold; all where there is none
    inliers: dict[tuple[str, str], int]  # of each accepted pair


def components(
    database: Path, names: Sequence[str], least: int, without: Collection[tuple[str, str]] = ()
) -> list[Component]:
    """Of the accepted pairs of a database and the frames of its rigs, the largest first.

    Args:
        database: with two-view geometries.
        names: of its images.
        least: images of a component.
        without: pairs that do not count, as the `inliers` of components have them.
    """
    accepted = verified_inliers(database, names)
    if without:
        left_out = set(without)
        accepted = accepted[[(names[i], names[j]) not in left_out for i, j in accepted[:, :2].tolist()]]
    graph = Graph(len(names), np.concatenate((accepted[:, :2], frames(database, names))))
    partners = graph.degrees
    component = graph.components()
    found = []
    for number in np.flatnonzero(np.bincount(component, minlength=1) >= least):
        members = np.flatnonzero(component == number)
        held = int((partners[members] >= 2).sum()) or len(members)
        inside = accepted[component[accepted[:, 0]] == number].tolist()
        inliers = {(names[i], names[j]): count for i, j, count in inside}
        found.append(Component([names[i] for i in members.tolist()], held, inliers))
    return sorted(found, key=lambda one: -len(one.names))
