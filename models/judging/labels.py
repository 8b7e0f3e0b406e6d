"""How well answers predict the labels that people give: online, by label and model version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from river import metrics

# With more, what comes later counts as one class called this.
CLASSES_MAX: Final = 8
OTHER: Final = "(other)"
_CLASS_CHARS_MAX: Final = 60
_SERIES_MAX: Final = 64

# Truth, then prediction, to how often.
Cells = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """Of one label and version: figures over all classes, by class, and the confusion."""

    label: str
    model_version: str
    overall: dict[str, float]
    by_class: dict[str, dict[str, float]]
    confusion: Cells


@dataclass(slots=True)
class LabelTallies:
    """Counts by label, then model version; the newest 64 of such pairs are kept."""

    counts: dict[str, dict[str, Cells]] = field(default_factory=dict)

    def add(self, truth: Mapping[str, str], predicted: Mapping[str, str], version: str) -> None:
        """Takes in the labels of one answer that have a prediction."""
        for label, value in predicted.items():
            if label not in truth:
                continue
            versions = self.counts.setdefault(label, {})
            cells = versions.setdefault(version, {})
            row = cells.setdefault(_class(cells, truth[label]), {})
            found = _class(cells, value)
            row[found] = row.get(found, 0) + 1
            self._bound()

    def _bound(self) -> None:
        if sum(map(len, self.counts.values())) > _SERIES_MAX:
            label = next(iter(self.counts))
            self.counts[label].pop(next(iter(self.counts[label])))
            if not self.counts[label]:
                self.counts.pop(label)

    def quality(self) -> list[LabelQuality]:
        """Figures of all labels and versions, by River's metrics."""
        return [
            _quality(label, version, cells)
            for label, versions in self.counts.items()
            for version, cells in versions.items()
        ]


def _class(cells: Cells, name: str) -> str:
    """The class that a label counts under."""
    name = name[:_CLASS_CHARS_MAX]
    known = set(cells) | {predicted for row in cells.values() for predicted in row}
    return name if name in known or len(known) < CLASSES_MAX - 1 else OTHER


def _quality(label: str, version: str, cells: Cells) -> LabelQuality:
    matrix = metrics.ConfusionMatrix()
    for truth, row in cells.items():
        for predicted, count in row.items():
            matrix.update(truth, predicted, w=count)
    overall = {
        "count": float(sum(sum(row.values()) for row in cells.values())),
        "accuracy": metrics.Accuracy(cm=matrix).get(),
        "precision": metrics.MacroPrecision(cm=matrix).get(),
        "recall": metrics.MacroRecall(cm=matrix).get(),
        "f1": metrics.MacroF1(cm=matrix).get(),
        "f1_weighted": metrics.WeightedF1(cm=matrix).get(),
        "kappa": metrics.CohenKappa(cm=matrix).get(),
    }
    classes = {name: _of_class(matrix, name) for name in sorted(matrix.classes)}
    return LabelQuality(label, version, overall, classes, cells)


def _of_class(matrix: metrics.ConfusionMatrix, name: str) -> dict[str, float]:
    return {
        "count": float(matrix.support(name)),
        "precision": metrics.Precision(cm=matrix, pos_val=name).get(),
        "recall": metrics.Recall(cm=matrix, pos_val=name).get(),
        "f1": metrics.F1(cm=matrix, pos_val=name).get(),
    }
