"""Training: base module of all models, Lightning adapter, objectives, checkpoints, runs and callbacks."""

from animegen.engine.module import AnimeModule
from animegen.engine.objective import Context, Evaluation, Objective, Term
from animegen.errors import AnimegenError

__all__ = ["AnimeModule", "AnimegenError", "Context", "Evaluation", "Objective", "Term"]
