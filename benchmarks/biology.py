"""Measure what is left of crossing fibres, and of biology put into heads, after harmonization.

    python benchmarks/biology.py FOLDER [MODEL ...] [--test 4] [--targets prisma_st]

Heads of a seed that no model learned from are simulated; two of them teach the statistical
methods, and those whose names the packaged MSP knows are not measured. Everything is `simulate` and
`evaluate --fibres --biology`; what it found is copied into benchmarks/biology.md. Four
minutes a target on a core.
"""

import argparse
from pathlib import Path

from napari_msp.data.phantom.simulate import phantom_digest, simulate
from napari_msp.evaluation.benchmark.settings import EvaluationSettings
from napari_msp.evaluation.evaluate import evaluate
from napari_msp.packaged import packaged_model

SEED = 5000
METHODS = ("no harmonization", "alignment", "linear RISH")
PARTS = ("Biology put in", "Crossing fibres")
TEACHERS = ("sub-01", "sub-02")
KNOWN = 6
"""Heads of the packaged MSP's own dataset, of the same names."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="for heads and report")
    parser.add_argument("models", type=Path, nargs="*", help="default: the packaged MSP")
    parser.add_argument("--test", type=int, default=4, help="heads to measure")
    parser.add_argument("--targets", nargs="+", default=["prisma_st"])
    parser.add_argument("--page", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    names = [f"sub-{number + 1:02d}" for number in range(KNOWN + 1 + options.test)]
    heads = options.folder / "heads"
    if not heads.exists():
        simulate(heads, len(names), "tiny", SEED)
    settings = EvaluationSettings(
        methods=METHODS,
        models=tuple(options.models or [packaged_model("MSP")]),
        targets=tuple(options.targets),
        train=TEACHERS,
        validation=(names[KNOWN],),
        test=tuple(names[KNOWN + 1 :]),
        fibres=True,
        biology=True,
    )
    out = options.folder / "out"
    evaluate(heads, out, settings, workers=1, progress=print)
    options.page.write_text(page(out / "table1.md", options.test))


def page(tables: Path, heads: int) -> str:
    """Copy the tables into a page."""
    sections = {
        text.partition("\n")[0]: text.partition("\n")[2].strip()
        for text in tables.read_text().split("\n## ")[1:]
    }
    head = (
        "# What is left of biology and of crossing fibres\n\n"
        f"`python benchmarks/biology.py FOLDER` predicts {heads} simulated heads of size tiny, "
        f"seed {SEED} (phantom {phantom_digest()}), from ge_st. {len(TEACHERS)} others teach the "
        "statistical methods; the packaged MSP knows heads of other seeds. There is one simulator "
        "and one seed: no other signal model, no other scanners.\n"
    )
    return head + "".join(f"\n## {name}\n\n{sections[name]}\n" for name in PARTS)


if __name__ == "__main__":
    main()
