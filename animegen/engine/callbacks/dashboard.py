"""What TensorBoard shows of a run besides curves: its charts, its hyperparameters and its final scores."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: Overrides about the process of a run, which are no hyperparameters, and groups of them.
_OF_THE_PROCESS = frozenset(
    {
        *("output", "runs", "resume", "rerun", "overwrite", "threads", "device", "trust", "report", "evaluate"),
        *("val_every", "ablation", "logger", "callbacks", "benchmark", "debug", "hydra", "hydra/launcher"),
    }
)
#: Groups that are columns of their own.
_GROUPS = ("experiment", "model", "data", "size", "precision")

#: Scores of a run in TensorBoard.
MOST_SCORES = 5

Charts = dict[str, dict[str, list[Any]]]


def charts(tags: Iterable[str]) -> Charts:
    """Return the layout of CUSTOM SCALARS for scalars of these tags.

    Each validation metric has a chart of its own, since metrics differ in unit and range. The loss terms are grouped by
    network. Charts of the same name are equal for all models, so that TensorBoard merges those of several runs.

    Args:
        tags: of all scalars, such as ``val/psnr`` and ``train/generator/total``.
    """
    known = sorted(set(tags))
    layout: Charts = {}
    validation = {tag.partition("/")[2]: _lines(f"{re.escape(tag)}$") for tag in known if tag.startswith("val/")}
    if validation:
        layout["validation"] = validation
    for network in dict.fromkeys(tag.split("/")[1] for tag in known if re.match(r"train/[^/]+/", tag)):
        start = f"train/{re.escape(network)}/"
        layout[f"train: {network}"] = {
            "total": _lines(f"{start}total$"),
            "terms": _lines(f"{start}(?!total$|.*grad_norm$)[^/]+$"),
            "gradient norms": _lines(f"{start}.*grad_norm$"),
        }
    if any(tag.startswith("opt/lr/") for tag in known):
        layout["optimizers"] = {"learning rates": _lines("opt/lr/")}
    return layout


def _lines(pattern: str) -> list[Any]:
    return ["Multiline", [pattern]]


def hyperparameters(record: Mapping[str, Any]) -> dict[str, str | float | bool]:
    """Return the settings by which a run may differ from others: its choices, and every override by its full key.

    Args:
        record: content of ``run.json``.
    """
    config, choices = record.get("config") or {}, record.get("choices") or {}
    found: dict[str, Any] = {name: choices.get(name) for name in _GROUPS}
    found["ablations"] = "+".join(sorted(name for name, on in (config.get("ablations") or {}).items() if on)) or "none"
    found |= {name: config.get(name) for name in ("seed", "train_steps")}
    for word in record.get("overrides") or []:
        key, equals, value = word.lstrip("+").partition("=")
        if word.startswith("~"):
            found[word.partition("=")[0]] = True
        elif equals and not {key, key.partition(".")[0]} & _OF_THE_PROCESS:
            found.setdefault(key, _plain(value))
    return {name: value for name, value in found.items() if value is not None}


def _plain(value: str) -> str | float | bool:
    """Return a value of the command line as number, truth value or text without quotes."""
    value = value.strip("'\"")
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return float(value)
    except ValueError:
        return value


def final_scores(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the main scores of the evaluation of a run as ``eval/<metric>``.

    These are the main metric of the task and the first ones that have a better direction, `MOST_SCORES` in all: as many
    as HPARAMS shows. All scores are in ``run.json``. Values that are not finite are left out.
    """
    evaluation = record.get("evaluation") or {}
    scores = (evaluation.get("methods") or {}).get("model") or {}
    notes, main = evaluation.get("metrics") or {}, evaluation.get("main")
    directed = [name for name in scores if notes.get(name, {}).get("better") != "none"]
    chosen = [name for name in dict.fromkeys([main, *directed]) if name in scores][:MOST_SCORES]
    return {f"eval/{name}": scores[name]["mean"] for name in chosen if scores[name]["mean"] is not None}
