"""The contracts that all models share."""

from animegen.core.errors import AnimegenError
from animegen.core.module import AnimeModule
from animegen.core.objective import Context, Evaluation, Objective, Term

__all__ = ["AnimeModule", "AnimegenError", "Context", "Evaluation", "Objective", "Term"]
