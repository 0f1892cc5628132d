"""What a reader must know of a run, and the methods paragraph that is written from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from napari_msp.evaluation.benchmark.analysis import MethodTest
from napari_msp.evaluation.statistics import RESAMPLES
from napari_msp.formatting import listed


@dataclass(frozen=True)
class Split:
    """Who was used for what in one dataset."""

    training: Sequence[str]
    validation: Sequence[str]
    test: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """A run of the evaluation.

    Attributes
    ----------
    command
        The exact command.
    splits
        Subjects by dataset.
    input
        The platform that was harmonized.
    targets
        Platforms that were predicted.
    simulated
        Whether the heads were simulated.
    seeds
        Of the training; the first dataset was run with each, the others with the first one.
    tested
        The method that is tested against the others, chosen beforehand; None: no tests.
    methods
        What each method is, half a sentence by name.
    training
        Rows of the training table, such as method, parameters, steps, learning rate, trials and
        seconds; the heading is the key. All rows have the first one's keys.
    settings
        Further settings by name, such as steps and patch sizes, as text.
    b_value
        Of the shell, in s/mm²; None where platforms differ.
    sh_order
        Highest SH order.
    versions
        By package.
    machine
        Processor and accelerator, in words.
    frozen
        What pins the data, such as the hash of the simulation's parameters; may be empty.
    limits
        Sentences of this run, put before those that hold for every one.
    """

    command: str
    splits: Mapping[str, Split]
    input: str
    targets: Sequence[str]
    simulated: bool
    seeds: Sequence[int]
    tested: str | None
    methods: Mapping[str, str] = field(default_factory=dict)
    training: Sequence[Mapping[str, object]] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    b_value: float | None = None
    sh_order: int = 6
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    frozen: str = ""
    limits: Sequence[str] = ()


def methods_paragraph(facts: Facts, tests: Sequence[MethodTest] = ()) -> str:
    """Write what was done as a paper's methods section does.

    Parameters
    ----------
    tests
        Give the numbers of comparisons.

    Returns
    -------
    Plain text, ready to paste.
    """
    parts = [_data(facts), _split(facts), _networks(facts), _measures(facts), _statistics(tests)]
    return " ".join(part for part in parts if part)


def _data(facts: Facts) -> str:
    heads = "simulated travelling heads" if facts.simulated else "travelling heads"
    count = len(facts.splits)
    source = f"{count} datasets of {heads}" if count > 1 else heads
    b_value = f" (b = {facts.b_value:.0f} s/mm²)" if facts.b_value is not None else ""
    return (
        f"We used {source}. From the scan of {facts.input}, each method predicted the image of "
        f"{listed(facts.targets)}{b_value}. Images were real symmetric spherical-harmonic (SH) "
        f"series of order {facts.sh_order} in MRtrix3's basis and scanner axes, fitted to the "
        "b0-normalised signal with Laplace-Beltrami regularisation."
    )


def _split(facts: Facts) -> str:
    sizes = {
        (len(split.training), len(split.validation), len(split.test))
        for split in facts.splits.values()
    }
    if len(sizes) != 1:
        counts = "; ".join(
            f"{name}: {len(s.training)}, {len(s.validation)} and {len(s.test)}"
            for name, s in facts.splits.items()
        )
        return f"Subjects were split into training, validation and test ({counts})."
    training, validation, test = sizes.pop()
    choices = "every choice was made on validation subjects, and " if validation else ""
    return (
        f"{'In each dataset, subjects' if len(facts.splits) > 1 else 'Subjects'} were split into "
        f"{training} for training, {validation} for validation and {test} for test; {choices}test "
        "subjects were used for nothing else."
    )


def _networks(facts: Facts) -> str:
    sentences = []
    if facts.methods:
        described = "; ".join(
            f"{name} ({what})" if what else name for name, what in facts.methods.items()
        )
        sentences.append(f"Methods were: {described}.")
    sentences += [f"{name}: {value}." for name, value in facts.settings.items()]
    if len(facts.seeds) > 1:
        repeats = f"Training was repeated with {len(facts.seeds)} seeds"
        if len(facts.splits) > 1:
            repeats += " on the first dataset and run with the first seed on the others"
        sentences.append(f"{repeats}.")
    return " ".join(sentences)


def _measures(facts: Facts) -> str:
    truths = (
        "the measured scan, whose own noise bounds the error from below, and its noise-free twin"
        if facts.simulated
        else "the measured scan, whose own noise bounds the error from below"
    )
    return (
        "The main measure is the mean squared error of the SH coefficients over in-mask voxels "
        "and coefficients, on the target's own lattice: predictions were interpolated where "
        f"lattices differ, the truth never. Truth was {truths}."
    )


def _statistics(tests: Sequence[MethodTest]) -> str:
    sentences = [
        "Values are means over test subjects, each first averaged over training seeds, with 95 % "
        f"percentile bootstrap intervals over subjects ({RESAMPLES} resamples)."
    ]
    families = {(test.level, test.reference): test for test in tests}
    if families:
        first = next(iter(families.values()))
        counts = listed(list(dict.fromkeys(str(test.comparisons) for test in families.values())))
        sentences.append(
            f"{first.first} was compared with each other method on each target by Wilcoxon's "
            "signed-rank test, two-sided, on subjects, with Bonferroni's correction over the "
            f"{counts} comparisons of a truth; effect sizes are the rank-biserial correlation and "
            "the relative change of the mean error with its bootstrap interval over subjects."
        )
    if any(level == "patch" for level, _ in families):
        sentences.append(
            "The same test on non-overlapping patches is given for comparison with earlier work; "
            "patches of one head are not independent."
        )
    return " ".join(sentences)
