"""Diagonal Fisher of a vision backbone: measure it, store it, condition it."""

from anchored.fisher.conditioning import condition, shuffle_within_tensors
from anchored.fisher.diagonal import DiagonalFisher, diagonal_fisher, merge
from anchored.fisher.digest import backbone_digest
from anchored.fisher.estimators import sampled_nll
from anchored.fisher.io import LoadedFisher, load_fisher, load_shard, save_fisher, save_shard
from anchored.fisher.statistics import FisherStatistics, TensorStatistics, statistics

__all__ = [
    "DiagonalFisher",
    "FisherStatistics",
    "LoadedFisher",
    "TensorStatistics",
    "backbone_digest",
    "condition",
    "diagonal_fisher",
    "load_fisher",
    "load_shard",
    "merge",
    "sampled_nll",
    "save_fisher",
    "save_shard",
    "shuffle_within_tensors",
    "statistics",
]
