"""Running totals of an evaluation: what the metrics need of each batch, so that no output is kept.

Each kind of target has its totals. `add` takes the outputs of a batch on any device, `merge` adds what other processes
have, and `score` computes the metrics. The memory does not grow with the number of examples. The metrics are
scikit-learn's; `auc` of more than a million scores differs from it by about 1e-5, and of equal scores the first class
counts as the more probable one, for top-k as for accuracy.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.statistics import Moments
from functions.train.distributed.process_group import ProcessGroup
from functions.train.evaluation.score import Score
from pilotlight.contracts.metric import TOP_COUNTS

CHUNK_VALUES = {"cpu": 1 << 21, "cuda": 1 << 26}  # logits whose exponentials are in memory at once
MAX_EXACT_CLASSES = 4096  # up to which a loss is computed in float64: losses near 0 keep their digits
DEFAULT_TOP = "top_5"  # reported where there are more classes than five
MAX_EXACT_SCORES = 1 << 20  # for the area under a curve; more are counted in bins
AUC_BINS = 1 << 20  # of two classes' scores; more classes share twice as many
MIN_AUC_BINS = 256  # of one class's scores
AUC_SCALE = 8.0  # log-odds that reach the middle of one side's bins


class Totals(Protocol):
    """The running totals of one evaluation."""

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch."""

    def merge(self, process_group: ProcessGroup) -> None:
        """Add what the other processes have, each of another part of the data; all of them call this."""

    def score(self) -> Score:
        """Compute the metrics of what was added."""


def build_totals(data: Dataset, names: Collection[str] | None = None, unit: Moments | None = None) -> Totals:
    """Build the totals for targets like those of `data`: the default metrics, its own, and those that are named.

    None names all but top_k. `unit` restores the unit of scaled numbers for the errors that are in that unit.
    """
    if data.text:
        return LanguageModelTotals(data.text.tokenizer.byte_lengths)
    if data.classes:
        wanted = {*(names or ()), data.metric}
        return ClassificationTotals(data.classes, with_auc=names is None or "auc" in wanted, tops=list_tops(wanted))
    return RegressionTotals(unit, origin=float(np.mean(data.targets, dtype=np.float64)))


def list_tops(names: Collection[str]) -> tuple[int, ...]:
    """List k of each top_k that is reported."""
    return tuple(k for k in TOP_COUNTS if f"top_{k}" in {DEFAULT_TOP, *names})


class ClassificationTotals:
    """The totals of (N, classes) logits against (N,) labels."""

    def __init__(self, classes: Sequence[str], *, with_auc: bool = True, tops: Sequence[int] = (5,)) -> None:
        self._classes, self._tops = classes, [k for k in tops if k < len(classes)]
        self.supports, self.predicted, self.hits = torch.zeros(3, len(classes), dtype=torch.int64)
        self.top_hits = torch.zeros(len(self._tops), dtype=torch.int64)
        self.loss = torch.zeros(1, dtype=torch.float64)
        self._curve = CurveTotals(len(classes)) if with_auc and len(classes) > 1 else None

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch."""
        for rows, labels in split_rows(outputs, targets):
            answers, size = find_largest(rows), len(self._classes)
            self.supports += count_labels(labels, size)
            self.predicted += count_labels(answers, size)
            self.hits += count_labels(labels[answers == labels], size)
            self.loss += compute_losses(rows, labels).sum().cpu()
            if self._tops:
                ranks = count_ahead(rows, labels)
                self.top_hits += torch.stack([(ranks < k).sum() for k in self._tops]).cpu()
            if self._curve:
                self._curve.add(rows, labels)

    def merge(self, process_group: ProcessGroup) -> None:
        """Add what the other processes have."""
        for sums in (self.supports, self.predicted, self.hits, self.top_hits, self.loss):
            process_group.sum_over_ranks(sums)
        if self._curve:
            self._curve.merge(process_group)

    def score(self) -> Score:
        """Score accuracy, the recall of each class, its mean (the balanced accuracy), F1, top-k, AUC and log loss."""
        supports, predicted, hits = (counts.numpy() for counts in (self.supports, self.predicted, self.hits))
        count = int(supports.sum())
        recall = {self._classes[at]: float(hits[at] / supports[at]) for at in np.flatnonzero(supports).tolist()}
        loss = float(self.loss) / count
        metrics = {
            "accuracy": float(hits.sum() / count),
            "balanced_accuracy": float(np.mean(list(recall.values()))),
            "f1": compute_f1(supports, predicted, hits),
        }
        if self._curve and (area := self._curve.compute_area()) is not None:
            metrics["auc"] = area
        metrics |= {f"top_{k}": int(found) / count for k, found in zip(self._tops, self.top_hits, strict=True)}
        return Score(loss, metrics | {"log_loss": loss}, recall)


def compute_f1(supports: Array, predicted: Array, hits: Array) -> float:
    """Compute F1: of two classes that of the second, of more the mean over the classes that occur or are predicted."""
    total = supports + predicted
    each = np.divide(2 * hits, total, out=np.zeros(len(total)), where=total > 0)
    return float(each[1]) if len(each) == 2 else float(each[total > 0].mean())


class CurveTotals:
    """The scores of each class, by whether the example is of it: the area under the ROC curve.

    A score is the class's log-odds x. Up to a million scores are kept as they are, and the area is exact; more are
    counted in bins, by x / (8 + |x|), which are finest around even odds.
    """

    def __init__(self, classes: int) -> None:
        self._columns = 1 if classes == 2 else classes  # of two classes, both curves have the same area
        self._bins = AUC_BINS if classes == 2 else max(MIN_AUC_BINS, 2 * AUC_BINS // classes)
        self._counts: torch.Tensor | None = None  # (2, columns, bins): of others, and of the class
        self._held: list[tuple[torch.Tensor, torch.Tensor]] = []  # scores (n, columns), and whether of the class
        self._held_values = 0

    def add(self, rows: torch.Tensor, labels: torch.Tensor) -> None:
        """Add logits (n, classes)."""
        numbers = torch.arange(rows.shape[1], device=rows.device)[-self._columns :]
        self._held.append((compute_log_odds(rows)[:, -self._columns :].cpu(), (labels[:, None] == numbers).cpu()))
        self._held_values += len(rows) * self._columns
        if self._counts is not None or self._held_values > MAX_EXACT_SCORES:
            self._count_held()

    def merge(self, process_group: ProcessGroup) -> None:
        """Add what the other processes have."""
        total = int(process_group.sum_over_ranks(torch.tensor(self._held_values)))
        if process_group.max_over_ranks(self._counts is not None or total > MAX_EXACT_SCORES):
            process_group.sum_over_ranks(self._count_held())
        elif process_group.size > 1:
            odds, own = self._join_held()
            own = process_group.concatenate_over_ranks(own.to(torch.uint8)).bool()
            self._held = [(process_group.concatenate_over_ranks(odds), own)]

    def compute_area(self) -> float | None:
        """Compute the mean area over the classes; None where no class has both examples and others."""
        held = self._join_held() if self._counts is None else None
        columns = range(self._columns)
        counted = (count_scores(*held, column) if held else self._count_held()[:, column].numpy() for column in columns)
        areas = [area for others, own in counted if (area := compute_curve_area(others, own)) is not None]
        return float(np.mean(areas)) if areas else None

    def _join_held(self) -> tuple[torch.Tensor, torch.Tensor]:
        empty = torch.zeros(0, self._columns)
        scores, own = zip((empty.double(), empty.bool()), *self._held, strict=True)
        return torch.cat(scores), torch.cat(own)

    def _count_held(self) -> torch.Tensor:
        """Count the kept scores in their bins; return the counts."""
        if self._counts is None:
            self._counts = torch.zeros(2, self._columns, self._bins, dtype=torch.int64)
        odds, own = self._join_held()
        self._held, self._held_values = [], 0
        places = ((odds / (AUC_SCALE + odds.abs()) + 1) / 2 * self._bins).nan_to_num(0).long().clamp(0, self._bins - 1)
        places += self._bins * torch.arange(self._columns) + own * (self._columns * self._bins)
        one = torch.ones((), dtype=torch.int64).expand(places.numel())
        self._counts.view(-1).index_add_(0, places.flatten(), one)
        return self._counts


def count_scores(odds: torch.Tensor, own: torch.Tensor, column: int) -> tuple[Array, Array]:
    """Count each different score of a class, ascending: of others, and of the class."""
    _, places = np.unique(odds[:, column].numpy(), return_inverse=True)
    chosen, count = own[:, column].numpy(), int(places.max(initial=-1)) + 1
    return np.bincount(places[~chosen], minlength=count), np.bincount(places[chosen], minlength=count)


def compute_curve_area(others: Array, own: Array) -> float | None:
    """Compute the area from counts of equal scores, ascending: pairs in the right order, ties half; None of none."""
    pairs = float(others.sum()) * float(own.sum())
    below = np.cumsum(others) - others / 2
    return float((own * below).sum() / pairs) if pairs else None


def compute_log_odds(rows: torch.Tensor) -> torch.Tensor:
    """Compute log(p / (1 - p)) of each class from logits (n, classes), in float64."""
    exact = rows.double()
    largest = exact.max(dim=1, keepdim=True)
    shifted = exact - largest.values
    shares = shifted.exp()
    rest = shares.scatter(1, largest.indices, 0).sum(dim=1, keepdim=True)  # exact where the largest is nearly sure
    others = (shares.sum(dim=1, keepdim=True) - shares).scatter(1, largest.indices, rest)
    return shifted - others.clamp_min(torch.finfo(torch.float64).tiny).log()


class RegressionTotals:
    """The totals of (N, 1) numbers against the (N, 1) right ones."""

    def __init__(self, unit: Moments | None = None, origin: float = 0.0) -> None:
        self._scale = 1.0 if unit is None else float(np.ravel(unit.deviation)[0])
        self._shift = 0.0 if unit is None else float(np.ravel(unit.mean)[0])
        self._origin = origin  # close to the targets, so that their squares do not cancel
        # count, squared errors, errors, shares of the truth; targets from their origin and their squares
        self.sums = torch.zeros(6, dtype=torch.float64)

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch."""
        truth, answers = targets.double().cpu(), outputs.double().cpu()
        errors, centred = answers - truth, truth - self._origin
        shares = (self._scale * errors).abs() / (self._scale * truth + self._shift).abs().clamp_min(EPSILON)
        values = (torch.ones_like(errors), errors.square(), errors.abs(), shares, centred, centred.square())
        self.sums += torch.stack([value.sum() for value in values])

    def merge(self, process_group: ProcessGroup) -> None:
        """Add what the other processes have."""
        process_group.sum_over_ranks(self.sums)

    def score(self) -> Score:
        """Score R2, the share of the variance that is explained if there is any, and distances in the target's unit."""
        count, squares, distance, share, total, total_squares = self.sums.tolist()
        squared, mean = squares / count, total / count
        spread = total_squares / count - mean**2
        known = spread > 1e-12 * max(mean**2, total_squares / count)  # where all are alike there is nothing to explain
        explained = {"r2": 1 - squared / spread} if known else {}
        metrics = explained | {
            "rmse": self._scale * squared**0.5,
            "mae": self._scale * distance / count,
            "mape": share / count,
        }
        return Score(squared, metrics, {})


EPSILON = float(np.finfo(np.float64).eps)  # the least that a share divides by, as scikit-learn has it


class LanguageModelTotals:
    """The totals of (N, T, tokens) logits against the (N, T) tokens that follow, which have `widths` bytes each.

    Bits per byte do not depend on the tokenizer: the loss of the whole text, over its bytes. Perplexity is exp(loss).
    """

    def __init__(self, widths: Array) -> None:
        self._widths = torch.from_numpy(np.asarray(widths, np.int64))
        self.loss = torch.zeros(1, dtype=torch.float64)
        self.counts = torch.zeros(3, dtype=torch.int64)  # tokens, hits and bytes

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch."""
        for rows, labels in split_rows(outputs.flatten(0, -2), targets.flatten()):
            self.loss += compute_losses(rows, labels).sum().cpu()
            found = len(labels), int((find_largest(rows) == labels).sum()), int(self._widths[labels.cpu()].sum())
            self.counts += torch.tensor(found)

    def merge(self, process_group: ProcessGroup) -> None:
        """Add what the other processes have."""
        process_group.sum_over_ranks(self.loss)
        process_group.sum_over_ranks(self.counts)

    def score(self) -> Score:
        """Score accuracy, loss, perplexity and bits per byte."""
        tokens, hits, size = self.counts.tolist()
        loss = float(self.loss) / tokens
        metrics = {"accuracy": hits / tokens, "loss": loss, "perplexity": float(np.exp(loss))}
        return Score(loss, metrics | {"bits_per_byte": float(self.loss) / float(np.log(2)) / size}, {})


def split_rows(outputs: torch.Tensor, targets: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Split logits (n, classes) and labels (n,) into chunks of so many rows that their exponentials fit a cache."""
    rows = max(1, CHUNK_VALUES.get(outputs.device.type, CHUNK_VALUES["cpu"]) // max(1, outputs.shape[1]))
    return zip(torch.split(outputs, rows), torch.split(targets, rows), strict=True)


def find_largest(rows: torch.Tensor) -> torch.Tensor:
    """Find the first of the largest of each row; on a CPU numpy is four times as fast as torch."""
    if rows.device.type != "cpu" or rows.dtype == torch.bfloat16:
        return rows.argmax(dim=1)
    return torch.from_numpy(np.asarray(rows.numpy().argmax(axis=1)))


def count_ahead(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Count the classes that come before the right one, (n,): of equal scores the first comes first, and NaN last."""
    chosen = rows.gather(1, labels[:, None])
    ahead = ~(rows < chosen)
    ahead &= (rows != chosen) | (torch.arange(rows.shape[1], device=rows.device) < labels[:, None])
    return ahead.sum(dim=1)


def compute_losses(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute log(sum(exp(z))) - z[label] of each of n rows, float64; above 4,096 classes from float32."""
    exact = rows.double() if rows.shape[1] <= MAX_EXACT_CLASSES else rows.float()
    return cross_entropy(exact, labels, reduction="none").double()


def count_labels(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Count how often each class occurs, on the CPU."""
    return torch.bincount(labels.cpu(), minlength=classes)
