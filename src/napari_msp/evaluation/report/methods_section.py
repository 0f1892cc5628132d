"""An evaluation in words: its facts, the methods paragraph, and the works that it cites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_msp.evaluation.benchmark.analysis import MethodTest
from napari_msp.evaluation.benchmark.settings import Subjects
from napari_msp.evaluation.biology import EFFECTS
from napari_msp.evaluation.measures.fibres import COUNTED, FARTHEST_MATCH, MOST_VOXELS, SEEDS
from napari_msp.evaluation.measures.pair import FLUID_MD, GREY_FA, LARGEST_TISSUE_MD, WHITE_FA
from napari_msp.evaluation.regions import TISSUE
from napari_msp.evaluation.statistics import FOR_BOOTSTRAP, FOR_INTERVAL, RESAMPLES
from napari_msp.formatting import counted, listed, span
from napari_msp.signal.spherical_harmonics import ORDER, REGULARISATION_AT_30

if TYPE_CHECKING:  # they load torch
    from napari_msp.evaluation.benchmark.methods import Method
    from napari_msp.evaluation.benchmark.plan import Plan

MSP_PAPER = (
    "Blumberg SB, Palombo M, Khoo CS, Tax CMW, Tanno R, Alexander DC. Multi-Stage Prediction "
    "Networks for Data Harmonization. MICCAI, 2019; arXiv:1907.11629."
)

WORKS = (
    "Descoteaux M, and others. Regularized, fast, and robust analytical Q-ball imaging. Magnetic "
    "Resonance in Medicine, 2007; 58:497-510.",
    "Veraart J, and others. Weighted linear least squares estimation of diffusion MRI parameters: "
    "strengths, limitations, and pitfalls. NeuroImage, 2013; 81:335-346.",
)
"""Works that every methods paragraph cites."""


@dataclass(frozen=True)
class EvaluationRun:
    """A plan that was carried out, with what only its models, scans and results tell.

    Attributes
    ----------
    tested
        Method that is tested against the others, chosen beforehand; None: no tests.
    splits
        Subjects by dataset; only those are for test who have a scan on a target.
    methods
        Description of each row, by name.
    training
        Rows of the training table, such as method, parameters, steps, learning rate, trials and
        seconds; the heading is the key. All rows have the first one's keys.
    ended
        How each training ended, by method and phase.
    scans
        Description of each platform's scans, in a few words.
    notes
        Limits of the numbers that come from single heads, in words.
    """

    plan: Plan
    command: str
    simulated: bool
    tested: str | None
    splits: Mapping[str, Subjects]
    methods: Mapping[str, Method] = field(default_factory=dict)
    training: Sequence[Mapping[str, object]] = ()
    ended: Mapping[str, str] = field(default_factory=dict)
    scans: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""

    @property
    def lacking(self) -> list[str]:
        """Subjects who were to be measured but have no scan on any target."""
        measured = {who for split in self.splits.values() for who in split.test}
        return [who for who in self.plan.subjects.test if who not in measured]

    @property
    def software(self) -> str:
        """Name and version of this package, as in citations."""
        return f"napari-msp {self.versions.get('napari-msp', '')}".rstrip()

    @property
    def works(self) -> tuple[str, ...]:
        """References that the methods paragraph cites, each as in a list of references."""
        software = f"The napari-msp developers. {self.software} [computer software]."
        return (MSP_PAPER, *WORKS, software)


def methods_paragraph(run: EvaluationRun, tests: Sequence[MethodTest] = ()) -> str:
    """Write up the evaluation as a paper's methods section would.

    Parameters
    ----------
    tests
        Tests, for the number of comparisons.

    Returns
    -------
    Plain text, ready to paste.
    """
    doubts = " ".join(f"{each}." for each in (*run.plan.doubts, *run.plan.unfit))
    parts = (
        _data(run),
        _split(run),
        doubts,
        _networks(run),
        _measures(run),
        *_also_measured(run.plan),
        _statistics(run, tests),
    )
    return " ".join(part for part in parts if part)


def _data(run: EvaluationRun) -> str:
    heads = "simulated travelling heads" if run.simulated else "travelling heads"
    count = len(run.splits)
    source = f"{count} datasets of {heads}" if count > 1 else heads
    shells = listed([f"{b:.0f}" for b in run.plan.b_values])
    scans = [f"{platform} {what}" for platform, what in run.scans.items()]
    scanned = f" Scans were of {'; '.join(scans)}." if scans else ""
    return (
        f"We used {source}. From the scan of {run.plan.input}, each method predicted the image of "
        f"{listed(run.plan.targets)} (b = {shells} s/mm²), with {run.software} (Multi-Stage "
        f"Prediction: Blumberg 2019).{scanned} Images were real symmetric spherical-harmonic (SH) "
        f"series of order {ORDER} in MRtrix3's basis and scanner axes, fitted to the b0-normalised "
        "signal with Laplace-Beltrami regularisation (Descoteaux 2007; λ = "
        f"{REGULARISATION_AT_30:g} N / 30 for N directions)."
    )


def _split(run: EvaluationRun) -> str:
    if run.plan.folds:
        return _left_out(run)
    sizes = {
        (len(split.training), len(split.validation), len(split.test))
        for split in run.splits.values()
    }
    if len(sizes) != 1:
        counts = "; ".join(
            f"{name}: {len(s.training)}, {len(s.validation)} and {len(s.test)}"
            for name, s in run.splits.items()
        )
        return f"Subjects were split into training, validation and test ({counts})."
    training, validation, test = sizes.pop()
    if training == validation == 0:
        where = " of each dataset" if len(run.splits) > 1 else ""
        who = counted(test, "subject")
        if run.lacking:
            scan = f"{'has' if test == 1 else 'have'} a scan on {' or '.join(run.plan.targets)}"
            who = f"{test} of {test + len(run.lacking)} subjects{where}, who {scan},"
            where = ""
        return f"{who}{where} {_be(test)} measured; nobody was learned from here."
    parts = f"{training} for training, {validation} for validation and {test} for test"
    choices = "every choice was made on validation subjects, and " if validation else ""
    if not run.training and validation:
        parts = f"{training} for training and {test} for test"
        choices = f"{validation} for validation {_be(validation)} not used, as nothing was chosen; "
    return (
        f"{'In each dataset, subjects' if len(run.splits) > 1 else 'Subjects'} were split into "
        f"{parts}; {choices}test subjects were used for nothing else."
    )


def _be(count: int) -> str:
    return "was" if count == 1 else "were"


def _left_out(run: EvaluationRun) -> str:
    """Describe the roles of subjects when each of them was tested once."""
    sizes = span([len(fold.training) for fold in run.plan.folds])
    always = next(iter(run.splits.values())).training
    validating = (
        "nothing was chosen"
        if not run.training
        else "another one, the next in the list, validated: every choice was made on it"
        if any(fold.validation for fold in run.plan.folds)
        else "none validated, so nothing was chosen: learning rates and the single networks of an "
        "MSP were the presets'"
    )
    each = "In each dataset, each" if len(run.splits) > 1 else "Each"
    sentences = [
        f"{each} of {len(run.plan.folds)} subjects was test once (leave-one-out).",
        f"Everything that is learned was learned anew from {sizes} others each time; {validating}.",
    ]
    if always:
        sentences.append(f"{listed(always)} taught or validated and were never test.")
    return " ".join(sentences)


def _networks(run: EvaluationRun) -> str:
    sentences = []
    if run.methods:
        described = "; ".join(
            f"{name} ({each.explanation.rstrip('.')})" for name, each in run.methods.items()
        )
        sentences.append(f"Methods were: {described}.")
    sentences += _of_training(run.plan) if run.training else []
    if len(run.plan.asked.seeds) > 1:
        repeats = f"Training was repeated with {len(run.plan.asked.seeds)} seeds"
        if len(run.splits) > 1:
            repeats += " on the first dataset and run with the first seed on the others"
        alone = "all but the errors of the SH coefficients was measured with the first seed alone"
        sentences.append(f"{repeats}; {alone}.")
    return " ".join(sentences)


def _of_training(plan: Plan) -> list[str]:
    """Describe the training of all networks."""
    budget = plan.budget
    tried = list(dict.fromkeys(plan.rates_in(each) for each in plan.rounds))
    rates = "; or ".join(
        f"{', '.join(map(str, rates))} tried for every network on validation subjects, "
        f"{budget.tuning_steps} steps each on {', '.join(plan.tuning_targets)}; controls of the "
        "single networks' own width have theirs"
        if len(rates) > 1
        else f"{rates[0]:g} for every network, none tried"
        for rates in tried
    )
    ending = (
        f"at most {budget.steps} a target, fewer where nothing was gained on the validation "
        f"subjects for {budget.patience} times {budget.epoch} steps: the best averaged weights "
        "are kept"
        if plan.rounds[0].subjects.validation
        else f"{budget.steps} a target, fixed beforehand"
    )
    of_base = (
        "; from base as wide as the base, an MSP tuned as a whole from the first step"
        if plan.base is not None
        else ""
    )
    turned = "turned by grid symmetries" if budget.augment else "never turned, as in the paper"
    return [
        f"Steps: {ending}; for an MSP {budget.first_steps} of its first stage "
        f"(each target's own) and {budget.steps - budget.first_steps} in unison, all in unison "
        "where first stages are shared.",
        f"Crops: {budget.batch} a step of {budget.crop} voxels an axis, {turned}.",
        f"Width: {budget.width:g} of the full one{of_base}.",
        f"Learning rates: {rates}.",
    ]


def _measures(run: EvaluationRun) -> str:
    truths = "the measured scan, whose own noise bounds the error from below"
    if run.simulated:
        truths += ", and its noise-free twin"
    return (
        "The main measure is the mean squared error of the SH coefficients over in-mask voxels "
        "and coefficients, on the target's own lattice: predictions were interpolated where "
        f"lattices differ, the truth never. Truth was {truths}. Tensors were fitted by iteratively "
        f"reweighted least squares (Veraart 2013). In white matter truth's FA is above "
        f"{WHITE_FA:g}, in grey below {GREY_FA:g}, in both its mean diffusivity is below "
        f"{1e3 * LARGEST_TISSUE_MD:g}·10⁻³ mm²/s, in fluid above {1e3 * FLUID_MD:g}·10⁻³ mm²/s."
    )


def _also_measured(plan: Plan) -> list[str]:
    """Describe what was measured besides errors, in a methods section's words."""
    sentences = []
    if plan.asked.fibres or plan.asked.bundle:
        whose = "training" if plan.subjects.training else "test"
        sentences.append(
            "Fibre distributions are of constrained spherical deconvolution (Tournier 2007, "
            f"DIPY) of the SH series, of order {ORDER}, with one response a target, measured in "
            f"the voxels of highest FA in the {whose} subjects' scans on it."
        )
    if plan.asked.fibres:
        sentences.append(
            f"Peaks from {COUNTED:.0%} of a voxel's largest were matched within "
            f"{FARTHEST_MATCH:.0f}°, in at most {MOST_VOXELS} voxels of white matter a head"
            + (", all in the regions." if plan.regions not in ("", TISSUE) else ".")
        )
    if plan.asked.bundle:
        sentences.append(
            f"Left-right fibres were tracked deterministically from up to {SEEDS} seeds of truth, "
            "and the voxels visited compared by Dice's overlap."
        )
    if plan.asked.biology:
        sentences.append(
            f"Effects ({', '.join(EFFECTS)}) were put into the simulated test heads, which were "
            "scanned again with the same noise and predicted again; the part of each that is left "
            "is the mean recovered over the mean true effect."
        )
    return sentences


def _intervals(subjects: int) -> str:
    """Describe the intervals of means over this number of subjects."""
    if subjects < FOR_INTERVAL:
        return (
            f"without intervals: fewer than {FOR_INTERVAL} subjects do not say how subjects differ"
        )
    if subjects < FOR_BOOTSTRAP:
        return f"with 95 % intervals of Student's t over the {subjects} subjects"
    few = f"of Student's t where fewer than {FOR_BOOTSTRAP} have a value"
    return f"with 95 % percentile bootstrap intervals over subjects ({RESAMPLES} resamples; {few})"


def _statistics(run: EvaluationRun, tests: Sequence[MethodTest]) -> str:
    averaged = ", each first averaged over training seeds" * (len(run.plan.asked.seeds) > 1)
    if run.plan.folds:
        return (
            f"Values are means over test subjects{averaged}, with "
            "the value of each subject. Folds overlap: almost the same subjects taught in each, so "
            "neither intervals nor p-values are given."
        )
    sentences = [
        f"Values are means over test subjects{averaged}, "
        f"{_intervals(sum(len(each.test) for each in run.splits.values()))}."
    ]
    families = {(t.level, t.reference, t.shell): t for t in tests if t.comparisons}
    each_shell = any(test.shell is not None for test in tests)
    if families:
        first = next(iter(families.values()))
        counts = dict.fromkeys(test.comparisons for test in families.values())
        corrected = (
            f", with Bonferroni's correction over the {listed([*map(str, counts)])} comparisons of "
            f"a truth{' and a shell' if each_shell else ''}"
        ) * (max(counts) > 1)
        sentences.append(
            f"{first.first} was compared with each other method on each target by Wilcoxon's "
            f"signed-rank test, two-sided, on subjects{corrected}; effect sizes "
            "are the rank-biserial correlation and "
            "the relative change of the mean error, with its interval where there is one."
        )
    if any(level == "patch" for level, *_ in families):
        sentences.append(
            "The same test on non-overlapping patches is given for comparison with earlier work; "
            "patches of one head are not independent."
        )
    return " ".join(sentences)
