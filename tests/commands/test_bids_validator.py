"""What the commands write is BIDS: the official validator finds no error in it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SCAN, call

VALIDATOR = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))

pytestmark = pytest.mark.reference("BIDS validator")


def errors(dataset: Path, tmp_path: Path) -> list[str]:
    """Validate a dataset and each derivative in it; give every error.

    Each by itself: in its recursive mode the validator reads no `.bidsignore` of a derivative.
    """
    if VALIDATOR is None:
        pytest.skip("the BIDS validator is not installed")  # a failure in CI
    found = []
    for root in (dataset, *(dataset / "derivatives").glob("*/")):
        out = tmp_path / "validated.json"
        command = [VALIDATOR, str(root), "--format", "json", "--outfile", str(out)]
        subprocess.run(command, capture_output=True, check=False)
        found += [
            f"{issue['code']} {issue.get('subCode', '')} {issue.get('location', '')}"
            for issue in json.loads(out.read_text())["issues"]["issues"]
            if issue["severity"] == "error"
        ]
        out.unlink()
    return found


def test_simulated_heads(tmp_path):
    heads = tmp_path / "heads"
    assert call("simulate", heads, "--subjects", 1, "--size", "tiny").status == 0
    assert (heads / "derivatives/noisefree").exists()
    assert errors(heads, tmp_path) == []


@pytest.mark.slow
def test_aligned_heads(tmp_path):
    heads = tmp_path / "heads"
    call("simulate", heads, "--subjects", 1, "--size", "tiny", "--misalignment", 3)
    assert call("align", heads, tmp_path / "aligned").status == 0
    assert errors(tmp_path / "aligned", tmp_path) == []


@pytest.mark.parametrize("masks", [True, False])
def test_an_imported_tree(masks, study, tmp_path):
    tree = tmp_path / "tree" / "anna" / "GE" / "st"
    tree.mkdir(parents=True)
    for ending in ("nii.gz", "bval", "bvec"):
        scan = (study / SCAN).parent / f"{Path(SCAN).name.removesuffix('.nii.gz')}.{ending}"
        shutil.copy(scan, tree / f"dwi.{ending}")
    if masks:
        for mask in (study / SCAN).parent.glob("*mask.nii.gz"):
            shutil.copy(mask, tree / "dwi_mask.nii.gz")
        assert (tree / "dwi_mask.nii.gz").exists()
    out = tmp_path / "bids"
    pattern = "{subject}/{scanner}/{protocol}/dwi.nii.gz"
    assert call("import", tmp_path / "tree", out, "--pattern", pattern).status == 0
    assert (out / "derivatives/brainmask").exists() == masks
    assert errors(out, tmp_path) == []


def test_predictions(harmonized, tmp_path):
    assert errors(harmonized, tmp_path) == []


def test_a_second_target_beside_the_first(study, model, tmp_path):
    out = tmp_path / "out"
    for target in ("prisma_st", "connectom_sa"):
        answer = call("harmonize", study / SCAN, "--model", model, "--target", target, "--out", out)
        assert answer.status == 0
    assert errors(out, tmp_path) == []


def test_maps(study, tmp_path):
    assert call("maps", study / SCAN, "--out", tmp_path / "maps").status == 0
    assert errors(tmp_path / "maps", tmp_path) == []


def test_a_cohort(study, model, tmp_path):
    out = tmp_path / "cohort"
    platform = ("--platform", "ge_st")
    command = ("cohort", study, out, "participant", "--model", model, "--target", "prisma_st")
    assert call(*command, *platform).status == 0
    assert errors(out, tmp_path) == []


def test_sources_are_uris_that_lead_to_the_scan(harmonized, study):
    description = json.loads((harmonized / "dataset_description.json").read_text())
    sidecar = json.loads(next(harmonized.glob("*_dwi.json")).read_text())
    (uri,) = sidecar["Sources"]
    _, name, path = uri.split(":")
    found = harmonized / description["DatasetLinks"][name] / path
    assert found.resolve() == (study / SCAN).resolve()


def test_a_folder_that_is_a_dataset_already_keeps_its_description(study, tmp_path):
    own = tmp_path / "maps" / "dataset_description.json"
    own.parent.mkdir()
    own.write_text('{"Name": "mine"}')
    assert call("maps", study / SCAN, "--out", own.parent).status == 0
    assert own.read_text() == '{"Name": "mine"}'
    assert not (own.parent / ".bidsignore").exists()


def test_a_broken_dataset_is_found_out(study, tmp_path):
    """The check itself can fail."""
    maps = tmp_path / "maps"
    assert call("maps", study / SCAN, "--out", maps).status == 0
    (maps / ".bidsignore").unlink()
    assert errors(maps, tmp_path)
