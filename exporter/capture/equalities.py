"""Which sizes the shape specification makes equal to one another, or a function of one another."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch

from exporter.capture.artifacts import Bound
from exporter.torch_internals import (
    ConstantSource,
    DerivedDim,
    DimDynamic,
    DimHint,
    EqualityConstraint,
    ShapeEnv,
    Source,
    StrictMinMaxConstraint,
    TensorProperty,
    TensorPropertySource,
    ValueRanges,
)

_Place = tuple[int, int]
"""A tensor, by identity, and one of its dimensions."""


@dataclass
class _Survey:
    """Where each size stands in the arguments; a tensor that is passed twice stands in two places."""

    sources: dict[_Place, list[Source]] = field(default_factory=lambda: defaultdict(list))
    named: dict[str, list[tuple[_Place, Any]]] = field(default_factory=lambda: defaultdict(list))
    hinted: list[_Place] = field(default_factory=list)
    example: dict[_Place, int] = field(default_factory=dict)


def equalities_of(bound: Bound, shape_env: ShapeEnv) -> EqualityConstraint:
    """Return the equalities for the solver, creating a symbol for each root that is no size of any input."""
    survey = _survey(bound)
    pairs: list[tuple[Source, Source]] = []
    derived: list[tuple[Source, Any, Any]] = []
    phantoms: dict[str, Any] = {}
    for place in survey.hinted:
        pairs.extend(_repeats(survey, place))
    for targets in survey.named.values():
        first = targets[0][0]
        for index, (place, dim) in enumerate(targets):
            pairs.extend(_repeats(survey, place))
            source = survey.sources[place][0]
            if isinstance(dim, DerivedDim):
                derived.append((source, _root(survey, shape_env, phantoms, place, dim), dim.fn))
            elif index:
                pairs.extend((source, other) for other in survey.sources[first])
    return EqualityConstraint(
        source_pairs=pairs,
        derived_equalities=derived,
        phantom_symbols=list(phantoms.values()),
        relaxed_sources={survey.sources[place][0] for place in survey.hinted},
        warn_only=False,
    )


def _survey(bound: Bound) -> _Survey:
    survey = _Survey()
    for leaf in bound.leaves:
        for index, dim in enumerate(leaf.dims):
            if isinstance(dim, torch.export.Dim | DimHint):
                source = TensorPropertySource(leaf.source, TensorProperty.SIZE, index)
                survey.sources[id(leaf.value), index].append(source)
    for leaf in bound.declared:
        for index, dim in enumerate(leaf.dims):
            place = id(leaf.value), index
            if isinstance(dim, DimHint):
                survey.hinted.append(place)
            elif isinstance(dim, torch.export.Dim):
                survey.named[dim.__name__].append((place, dim))
                survey.example[place] = leaf.value.shape[index]
    return survey


def _repeats(survey: _Survey, place: _Place) -> list[tuple[Source, Source]]:
    source, *others = survey.sources[place]
    return [(source, other) for other in others]


def _root(survey: _Survey, shape_env: ShapeEnv, phantoms: dict[str, Any], place: _Place, dim: Any) -> Any:
    """Return what a derived dimension derives from: a size of an input, or else a symbol of its own."""
    name = dim.root.__name__
    if name in survey.named:
        return survey.sources[survey.named[name][0][0]][0]
    if name not in phantoms:
        offset = dim.fn(0)
        phantoms[name] = shape_env.create_symbol(
            val=(survey.example[place] - offset) // (dim.fn(1) - offset),
            source=ConstantSource(name),
            dynamic_dim=DimDynamic.DYNAMIC,
            constraint_dim=StrictMinMaxConstraint(vr=ValueRanges(dim.root.min, dim.root.max), warn_only=False),
        )
    return phantoms[name]
