"""Site effect in a window: what was compared is shown at once, comparing anew can be cancelled."""

import os
import threading
import time
import warnings
from types import SimpleNamespace

import pytest
from qtpy.QtCore import Qt

from napari_msp.bids import dataset_description
from napari_msp.errors import Advice, Choose, CountAsB0, UserError, either, stop_if
from napari_msp.evaluation.benchmark.results import RegionValue, Results
from napari_msp.evaluation.evaluate import REPORT
from napari_msp.evaluation.proof.make_pages import make_pages
from napari_msp.evaluation.proof.pages import BEFORE, TARGET, ProofData
from napari_msp.files import new_folder, write_json
from napari_msp.processes import JobProgress
from napari_msp.ui.phrasing import said
from napari_msp.ui.reading import POLL, Report
from napari_msp.ui.site_effect.widget import WORDS


@pytest.fixture
def viewer(kept_viewer):
    return kept_viewer


def write(folder, after):
    """Write the site effect of three people's FA, 20 % lower before."""
    scans = (0.40, 0.44, 0.48)
    rows = {TARGET: 1.0, BEFORE: 0.8, "harmonized": after}
    values = [
        RegionValue(row, "prisma_st", "heads", 0, f"sub-{n}", "scan", "white", "fa", share * scan)
        for row, share in rows.items()
        for n, scan in enumerate(scans)
    ]
    (page,) = make_pages(ProofData(Results(values), "ge_st", "given"))
    folder.mkdir(exist_ok=True)
    for name, table in page.files.items():
        (folder / f"{name}.csv").write_text(table.csv())
    (folder / "report.html").write_text("")
    (folder / "plan.json").write_text("{}")


@pytest.fixture
def predictions(tmp_path):
    """A folder of predictions that says of which heads, compared before."""
    folder, heads = tmp_path / "harmonized", tmp_path / "heads"
    heads.mkdir()
    about = dataset_description("harmonized", derivative=True)
    write_json(
        folder / "dataset_description.json", about | {"DatasetLinks": {"source": "../heads"}}
    )
    made = folder / "sub-01" / "sub-01_desc-x_dwi.nii.gz"
    made.parent.mkdir()
    made.touch()
    os.utime(made, (1, 1))
    write(folder / "proof", 1.05)
    return folder


def settle(qtbot, widget):
    qtbot.wait_until(lambda: not widget.running)


def test_what_was_compared_is_shown_and_compared_anew(
    viewer, open_widget, qtbot, predictions, monkeypatch
):
    asked = []

    def prove(heads, folder, *, regions, run, input, progress, cancelled):
        if run is None:
            remedy = either(Advice("first join the parts"), Choose("run", ("1", "2")))
            raise UserError("was scanned twice", field="run", remedy=remedy)
        asked.append((heads, folder, regions, run))
        progress(JobProgress("sub-01 on prisma_st", 0.5, 1.0))
        progress(JobProgress(REPORT, 0.9, 0.0))
        for n in range(5):
            warnings.warn(f"{heads}/sub-0{n} has no prediction", stacklevel=2)
        write(folder / "proof", 1.02)

    monkeypatch.setattr("napari_msp.evaluation.evaluate.prove", prove)
    widget = open_widget("Site effect")
    assert widget.panel.isHidden() and widget.report.isHidden()
    assert "Choose a folder of predictions" in widget.form.rows.said("predictions")
    widget.look_at(predictions)
    settle(qtbot, widget)
    assert "5.0 % higher after (harmonized)" in widget.panel.words.text()
    assert not widget.report.isHidden()
    assert widget.message.text == widget.form.notices.text == ""
    heads = widget.form.heads.path
    assert heads.resolve() == predictions.parent / "heads"
    widget.form.button.click()
    settle(qtbot, widget)
    assert "several scans on the target" in widget.form.rows.said("run")
    assert widget.message.text == ""  # a question is no error
    widget.form.asked["run"].setCurrentText("2")
    told = []
    widget.progress.job.progressed.connect(told.append)
    widget.form.button.click()
    settle(qtbot, widget)
    assert told == [
        Report("sub-01 on prisma_st", 50, 100),
        Report("writing the report", 90, 100),
    ]
    assert asked == [(heads, predictions, "tissue", 2)]
    assert widget.form.rows.said("run") == ""  # it is answered
    # By their names in the folder that was opened.
    assert widget.message.text.splitlines()[1] == "sub-01 has no prediction."
    assert widget.message.text.endswith("And 2 more: see the report.")
    assert "2.0 % higher after (harmonized)" in widget.panel.words.text()
    assert widget.form.button.isEnabled()
    # A prediction made since is told of, also where Harmonize saves it, whenever one looks.
    later = time.time() + 60
    for name in ("sub-01/sub-01_desc-x_dwi.nii.gz", "sub-02_desc-x_dwi.nii.gz"):
        made = predictions / name
        made.touch()
        os.utime(made, (later, later))
        widget.look_at(predictions)
        settle(qtbot, widget)
        assert "newer predictions" in widget.message.text
        os.utime(made, (1, 1))
    (predictions / "proof" / "report.html").unlink()
    widget.look_at(predictions)
    settle(qtbot, widget)
    assert widget.message.text == ""
    assert "2.0 % higher" in widget.panel.words.text()
    assert widget.report.isHidden()


def test_comparing_is_cancelled_and_problems_stand_where_they_belong(
    viewer, open_widget, qtbot, predictions, monkeypatch
):
    go, begun = threading.Event(), []

    def endless(heads, folder, *, regions, run, input, progress, cancelled):
        begun.append(folder)
        with new_folder(folder / "proof", replace=True):
            progress(JobProgress("sub-01", 0.1, 1.0))
            go.wait(60)  # without a word
            stop_if(cancelled)
            progress(JobProgress("sub-02", 0.2, 1.0))

    monkeypatch.setattr("napari_msp.evaluation.evaluate.prove", endless)
    widget = open_widget("Site effect")
    widget.look_at(predictions)
    settle(qtbot, widget)
    widget.form.button.click()
    qtbot.wait_until(lambda: "sub-01" in widget.progress.words.text())
    assert not widget.form.button.isEnabled()
    widget.look_at(predictions.parent)
    assert "Cancel it" in widget.message.text
    assert widget.form.folder.path == predictions
    with qtbot.waitActive(widget.window()):
        widget.window().activateWindow()
    qtbot.keyClick(widget.progress.cancel, Qt.Key_Escape)
    assert widget.progress.state == "cancelling"
    qtbot.wait(3 * round(1000 * POLL))
    assert widget.running  # or another one would write beside it
    assert not widget.form.button.isEnabled()
    go.set()
    settle(qtbot, widget)
    assert begun == [predictions]
    assert not list(predictions.glob(".*"))
    assert widget.message.text == "Cancelled."
    assert widget.form.button.isEnabled()
    assert "5.0 %" in widget.panel.words.text()  # what was compared before
    monkeypatch.undo()
    widget.form.regions.choose(predictions / "nowhere.nii.gz")
    widget.form.button.click()
    settle(qtbot, widget)
    assert "heads: " in widget.form.rows.said("datasets") + widget.message.text  # empty
    (predictions / "proof" / "regions.csv").write_text("")
    widget.look_at(predictions.parent)
    widget.look_at(predictions)
    settle(qtbot, widget)
    assert "regions.csv: is not a table of the site effect" in widget.message.text
    assert widget.form.button.isEnabled()  # to compare anew, with the heads that it is of


def test_no_other_window_is_named_that_cannot_help():
    error = UserError("has no b=0 volume", "sub-01_dwi.nii.gz", remedy=CountAsB0(60))
    assert said(error, WORDS) == "sub-01_dwi.nii.gz: has no b=0 volume; count b ≤ 60 as b=0"


def test_review_leads_there_unless_names_are_hidden(viewer, open_widget, qtbot, predictions):
    review = open_widget("Review")
    review.session = SimpleNamespace(blind=True)
    review.show_site_effect()
    assert "without hiding" in review.message.text
    review.session = SimpleNamespace(blind=None, review=SimpleNamespace(folder=predictions))
    review.show_site_effect()
    (widget,) = [each for each in viewer.window.dock_widgets.values() if hasattr(each, "look_at")]
    settle(qtbot, widget)
    assert "5.0 % higher" in widget.panel.words.text()
    review.session = None
