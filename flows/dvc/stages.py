"""The stages of dvc.yaml, the only DAG, as the flows read them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import networkx as nx
import yaml
from pydantic import ValidationError

from atelier.config.fields import Params, Positive, Whole
from atelier.config.messages import explain
from atelier.errors import ParamsError

if TYPE_CHECKING:
    from dvc.stage import PipelineStage


CODE = "code"  # the stage that says what the code of the others does; it takes a second
_DVC_YAML = Path("dvc.yaml")


class Meta(Params):
    """``meta:`` of a stage: how the flows run it. DVC itself ignores it."""

    gpu: Whole  # GPUs it takes for itself; 0: it runs on the CPU
    memory: Whole  # GiB that must be free, on each of its GPUs or in the machine
    retries: Whole  # a retry goes on from the last checkpoint
    timeout: Positive  # seconds it may take
    silence: Positive  # seconds it may print nothing


class Stage(Params):
    """One stage of dvc.yaml."""

    name: str
    needs: tuple[str, ...]  # stages whose outs it reads
    outs: tuple[str, ...]  # paths that it makes
    pins: tuple[str, ...] = ()  # .dvc files of the inputs that it reads
    about: str
    meta: Meta


@dataclass(frozen=True)
class _Graph:
    """DVC's own graph; an edge goes from a stage to what it needs."""

    edges: "nx.DiGraph[PipelineStage]"

    def in_order(self) -> "list[PipelineStage]":
        """Return the pipeline's stages, each after its needs; .dvc files are no stages."""
        upwards = self.edges.reverse()
        order = nx.lexicographical_topological_sort(upwards, key=lambda stage: stage.addressing)
        return [stage for stage in order if hasattr(stage, "meta") and stage.cmd]

    def with_needs(self, names: Sequence[str]) -> "set[PipelineStage]":
        chosen = [stage for stage in self.in_order() if stage.addressing in names]
        return set(chosen).union(*(nx.descendants(self.edges, stage) for stage in chosen))


def names() -> list[str]:
    """Return the names that dvc.yaml gives its stages, in its order; DVC is not asked.

    Raises:
        ParamsError: There is no dvc.yaml here.
    """
    try:
        content = yaml.safe_load(_DVC_YAML.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{_DVC_YAML} is absent; run this from the root of the repository"
        ) from None
    return list(content["stages"])


def read(targets: Sequence[str] = ()) -> list[Stage]:
    """Return the stages that ``targets`` need, themselves included, each after its needs.

    The working directory is the repository's root: DVC resolves names against it.

    Args:
        targets: Names of stages; none means all.

    Raises:
        ParamsError: A target is no stage, or a ``meta`` does not fit.
    """
    from dvc.repo import Repo

    with Repo(os.curdir) as repo:
        graph = _Graph(repo.index.graph)
        order = graph.in_order()
        names = [stage.addressing for stage in order]
        unknown = [target for target in targets if target not in names]
        if unknown:
            raise ParamsError(
                f"dvc.yaml has no stage {', '.join(unknown)}; it has {', '.join(names)}"
            )
        wanted = graph.with_needs(targets or names)
        return [_stage(stage, graph) for stage in order if stage in wanted]


def alone(*names: str) -> list[Stage]:
    """Return stages without those that they need, but with ``code``, if they need that.

    Without it they would be taken for up to date after a change of their code.

    Raises:
        ParamsError: As for ``read``.
    """
    return [stage for stage in read(names) if stage.name in {CODE, *names}]


def _stage(stage: "PipelineStage", graph: _Graph) -> Stage:
    needs = set(graph.edges.successors(stage))
    try:
        meta = Meta.model_validate(stage.meta or {})
    except ValidationError as error:
        raise ParamsError(
            f"dvc.yaml, stage {stage.addressing}, meta does not fit:\n{explain(error)}"
        ) from None
    return Stage(
        name=stage.addressing,
        needs=tuple(need.addressing for need in graph.in_order() if need in needs),
        outs=tuple(str(out) for out in stage.outs),
        pins=tuple(sorted(need.addressing for need in needs if need.is_data_source)),
        about=stage.desc or "",
        meta=meta,
    )
