"""The state of an engine that lets another one, its core, do the rest."""

from wavewn.state import StateLayout


def with_core(own: StateLayout, core: StateLayout) -> StateLayout:
    """Lay a core's entries, as `core.NAME`, behind an engine's own."""
    shapes = [(e.name, e.rows, e.channels) for e in own.entries]
    shapes += [(f"core.{e.name}", e.rows, e.channels) for e in core.entries]
    return StateLayout.of(shapes)
