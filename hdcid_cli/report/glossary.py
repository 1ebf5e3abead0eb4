"""What tasks and metrics are called, which metric is a task's headline, and what all of them mean."""

import re
from collections.abc import Iterable, Sequence

# The metric that the papers give for each task (method.md), and for other tasks the one that says most. Of several
# alternatives the first that was measured; the metrics of one alternative stand side by side.
HEADLINES: dict[str, tuple[tuple[str, ...], ...]] = {
    "ave": (("precision",),),
    "avvp": (("accuracy",),),
    "ave2avvp": (("f1",),),
    "ucf2vgg": (("precision",),),
    "ucf51": (("precision",),),
    "vggsound": (("precision", "segment_accuracy"), ("precision",), ("segment_accuracy",)),
    "segment": (("miou", "fscore"), ("miou",), ("fscore",)),
    "classify": (("precision",),),
    "localise": (("f1",),),
    "retrieve": (("both r@1",), ("summary r@1",), ("codes r@1",)),
    "codes": (("layer 1 ami",), ("layer 1 nmi",)),
}
# Of every task with an open set.
OPEN_SET = "hos"

TASKS = list(HEADLINES)
LOWER_IS_BETTER = re.compile(r"fpr95|.*\b(median|mean)_rank")

# The papers' own names where a table is of their tasks; for one's own tables the names that people use.
OWN_NAMES = {
    "classify": {"precision": "top-1 accuracy"},
    "localise": {"accuracy": "precision", "f1": "F1"},
}

# Each metric as hdcid-methods(7) explains it, in its order; a test compares the two.
METRICS = (
    "`precision`: what the papers call precision: top-1 accuracy, the share of clips whose likeliest class is right.",
    "`macro_precision`, `macro_recall`, `macro_f1`: means over the classes that occur.",
    "`map`: mean average precision over classes, a clip one score a class.",
    "`accuracy`: what the papers call accuracy on LLP: the precision of sigmoid > 0.5, over all entries, background "
    "included.",
    "`recall`, `f1`: the same way; `f1` is that of the pooled entries.",
    "`foreground_precision`, `foreground_recall`, `foreground_f1`: the same without the background's column.",
    "`segment_accuracy`: share of segments whose likeliest entry is right.",
    "`segment_map`: mean average precision over classes, a segment one score a class.",
    "`segment_f1`, `event_f1`: LLP's official scores of one modality, over segments, and over whole events that "
    "overlap by half.",
    "`segment_a`, `segment_v`, `segment_av`, `segment_type`, `segment_event`: LLP's official scores of both "
    "modalities (Tian et al. 2020): heard, seen, both, their mean, and counts of both pooled.",
    "`event_a`, `event_v`, `event_av`, `event_type`, `event_event`: the same over whole events.",
    "`hos`: with `--open-set`, the harmonic mean of `os_star`, the share of known clips answered right and not "
    "rejected, and `unk`, the share of unknown ones rejected. `kept`: known clips not rejected. Shares over clips, "
    "not means over classes.",
    "`closed`: with `--open-set`, accuracy on known clips if nobody is rejected. `auroc`: how often a known clip "
    "scores higher than an unknown one, equal scores counting half. `oscr`: the same where the known clip is "
    "answered right as well, the area under correct classification over false positives (Dhamija et al. 2018). "
    "`fpr95`: unknown clips that reach the score which 95 % of known test clips reach; the lower the better. Chance "
    "of `hos` is what a score that says nothing gets at its best threshold with this `closed` accuracy c: 2 c / (1 + "
    "sqrt c)^2; of `oscr` half of `closed`.",
    "`miou`: mean intersection over union; a frame without an object scores the share of pixels left empty.",
    "`fscore`: beta^2 = 0.3, frames with an object, each clip at the best of 255 thresholds, as published; "
    "`fscore_shared`: all clips at one threshold, the best.",
    "`summary r@1`, `codes r@5`, `both r@10` and so on: share of queries whose own clip is among the first; of "
    "equals every order is as likely.",
    "`summary median_rank`, `summary mean_rank` and so on: of the own clip, or of the first of a clip's own captions.",
    "`summary map@10` and so on: with `--captions`, mean average precision over the first 10 ranks: precision at the "
    "rank of each own item among them, over the number of own items or 10.",
    "`layer 1 purity` and so on: share of segments whose label is the commonest of their code.",
    "`layer 1 nmi`: mutual information of code and label over the mean of their entropies.",
    "`layer 1 ami`: the same adjusted for chance (Vinh et al. 2010): 0 for codes that say nothing, 1 for names of "
    "the labels. Chance of all three is the mean over 100 permutations of the labels, whole clips changing places.",
    "`layer 1 used`: codes that occur. `layer 1 shared`: codes that stand for the same label in two modalities. With "
    "`pq:N` they are of one block of channels each, the first, the second and so on.",
)

WORDS = (
    "`v→a`: learned on the codes of video (v), tested on those of sounds (a); t is text. `retrieve`: asked with video, "
    "sounds ranked.",
    "`supervised`: a probe on the raw features of the modality that is tested, the ceiling of each column.",
    "`chance`: what the best answer by this metric gets that does not look at its input.",
    "`heldout`: test clips are measured once, by a probe that was learned and chosen on others. `published`: the "
    "released evaluation, which chooses on the tested clips.",
    "`toc`: how many codebook channels were read; none: all.",
)


def headline(task: str, measured: Iterable[str]) -> set[str]:
    """Of the metrics that were measured, in that order, those that a task's results are known by.

    Of a task that is not among HEADLINES it is what was measured first: records begin with what their task is about.
    """
    measured = list(measured)
    found = next((set(names) for names in HEADLINES.get(task, ()) if {*measured} >= {*names}), set())
    if OPEN_SET in measured:
        found |= {OPEN_SET}
    return found or {measured[0]}


def order(task: str) -> Sequence[str]:
    """The task's headline metrics, first to last."""
    return (*HEADLINES.get(task, ((),))[0], OPEN_SET)


def name_in(task: str, metric: str) -> str:
    """What a metric is called in a table: as the papers call it, or as people do where a task is one's own."""
    return OWN_NAMES.get(task, {}).get(metric, metric)


def explanation(metric: str) -> str | None:
    """What a metric is, as a line of the glossary; None for a metric from elsewhere."""
    known: dict[str, str] = {}
    for entry in METRICS:
        for name in re.findall("`([a-z@_0-9 ]+)`", entry):
            known.setdefault(name, entry)
    # Of retrieval and codes the glossary names one of each family.
    family = re.sub(r"^layer \d+ (block \d+ )?", "layer 1 ", metric)
    family = re.sub(r"^(summary|codes|both) r@\d+$", "summary r@1", family)
    family = re.sub(r"^(summary|codes|both) (?=median_rank|mean_rank|map@)", "summary ", family)
    return known.get(metric) or known.get(family)


def glossary(quantities: Iterable[tuple[str, str]] = ()) -> list[tuple[str, list[str]]]:
    """Sections of explanations: [(title, entries)].

    Args:
        quantities: (task, metric) of what was measured; without any, everything is explained.
    """
    quantities = sorted(set(quantities), key=lambda pair: (place(TASKS, pair[0]), pair))
    metrics = dict.fromkeys(metric for _, metric in quantities)
    entries = [found for metric in metrics if (found := explanation(metric))] if quantities else METRICS
    tasks = dict.fromkeys(task for task, _ in quantities) if quantities else TASKS
    named = [f"`{task}`: {_headline_of(task)}" for task in tasks if task in HEADLINES]
    own = [
        f"`{ours}` of `{task}`: `{metric}` in its records."
        for task, names in OWN_NAMES.items()
        for metric, ours in names.items()
        if metric.lower() != ours.lower() and (not quantities or (task, metric) in quantities)
    ]
    in_order = sorted(dict.fromkeys(entries), key=METRICS.index)
    sections = [("Headlines", [*named, *own]), ("Metrics", in_order), ("Words", list(WORDS))]
    return [(title, lines) for title, lines in sections if lines]


def _headline_of(task: str) -> str:
    return "; ".join(" and ".join(f"`{name}`" for name in names) for names in HEADLINES[task][:1]) + "."


def place(names: Sequence[str], name: str) -> int:
    """Where a name stands among others; behind them if it is none of them."""
    return names.index(name) if name in names else len(names)
