"""A map that is one entry of the registry shows everywhere: files, Figure 3, Compare, layers."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, sys
from pathlib import Path

import numpy as np
from napari_msp.signal import maps

entry = maps.Map(
    "coherence", "coherence", "1", "coherence",
    lambda maps: np.abs(maps.image.coefficients[..., 1]), model="sh",
)
maps.MAPS = {**maps.MAPS, entry.name: entry}  # before anything else has looked

import napari_msp as msp
from qtpy.QtWidgets import QApplication
from napari_msp.ui.compare.form import CompareForm
from napari_msp.ui.layers import MAP_TITLES, scan_layers

application = QApplication([])
heads, out = Path(sys.argv[1]), Path(sys.argv[2])
source, truth = (
    msp.load_scan(heads / f"sub-01/ses-{ses}/dwi/sub-01_ses-{ses}_acq-st_dwi.nii.gz")
    for ses in ("ge", "prisma")
)
compared = msp.compare(truth, {"GE": source}, maps=["coherence"])
texts = [text.get_text() for axes in compared.figure.axes for text in axes.texts]
texts += [axes.get_title() + axes.get_ylabel() for axes in compared.figure.axes]
texts += [text.get_text() for text in compared.figure.texts]
form = CompareForm()
print(json.dumps({
    "files": [path.name for path in source.save(out)],
    "figure": texts,
    "numbers": list(compared.to_json()["predictions"]["GE"]),
    "choices": [form.maps.itemText(number) for number in range(form.maps.count())],
    "load and harmonize": list(MAP_TITLES),
    "layers": [layer[1]["name"] for layer in scan_layers(source, maps=["coherence"])],
}))
"""


def test_it_takes_one_entry(heads: Path, tmp_path: Path):
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(heads), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert set(shown) == {
        "files", "figure", "numbers", "choices", "load and harmonize", "layers",
    }  # fmt: skip
    for place, texts in shown.items():
        assert any("coherence" in text for text in texts), place
