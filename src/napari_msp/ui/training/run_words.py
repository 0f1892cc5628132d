"""What a training run is, how well it does and how it ended, in words: no Qt."""

from __future__ import annotations

from napari_msp.formatting import short
from napari_msp.learning.events import Event, Failed, Finished, Started, Stopped
from napari_msp.learning.run_folder import RunFolder, State
from napari_msp.ui.diagram.parts import TITLES
from napari_msp.ui.training.fields import form_fields
from napari_msp.ui.training.run_history import RunHistory
from napari_msp.ui.words import in_words

NO_MEMORY = "not enough memory; choose a smaller batch or crop (Advanced), or the CPU as device"

FROM_CHECKPOINT = "Resume goes on from the last checkpoint."

ANEW = "Resume begins anew."


def what_is_trained(folder: RunFolder, started: Started | None) -> str:
    """Say such as "MSP from ge_st, preset fast, on cpu: 3 subjects, sub-04 held out"."""
    settings = folder.settings
    device = folder.device if started is None else started.device
    words = f"{TITLES[settings.kind]} from {settings.input}, preset {settings.preset}, on {device}"
    if started is None:
        return words
    held_out = ", ".join(started.held_out) or "nobody"
    return (
        f"{words}: {len(started.subjects)} subjects, {held_out} held out, "
        f"{started.parameters:,} weights"
    )


def against_alignment(history: RunHistory) -> str:
    """Give each target's latest held-out error beside alignment's, the line to beat.

    Returns
    -------
    A table as rich text, with rows such as "prisma_st 3.9e-4 5.2e-4 25 % better"; empty as long as
    there is no error.
    """
    rows = []
    for target in history.targets:
        latest = [errors[-1] for _, errors in history.errors(target)]
        if latest:
            aligned = history.aligned.get(target)
            rows.append([target, short(latest[-1]), *_beside(latest[-1], aligned)])
    if not rows:
        return ""
    table = [["SH MSE", "now", "alignment", ""], *rows]
    return "<table>" + "".join(f"<tr>{_cells(row)}</tr>" for row in table) + "</table>"


def how_it_stands(state: State, history: RunHistory, last: Event | None, resumable: bool) -> str:
    """Say what has become of a run that nobody executes.

    Parameters
    ----------
    state, resumable
        Of its folder.
    history, last
        What happened in it, and its last event.
    """
    step = history.last.step if history.last else 0
    of_all = f" of {history.started.steps:,}" if history.started else ""
    goes_on = " Resume goes on from there." if resumable else f" {ANEW}"
    match last:
        case Finished(seconds=seconds):
            return f"Finished after {_duration(seconds)} of training."
        case Stopped(step=at):
            return f"Stopped at step {at:,}{of_all}.{goes_on}"
        case Failed(message=message):
            return failed(message, resumable)
    if state == "finished":
        return "Finished."
    if state == "new" and not history.started:
        return "Not begun."
    where = (
        f"Ended from outside after step {step:,}{of_all}, most likely when the machine went down."
    )
    return where + (" " + FROM_CHECKPOINT if resumable else goes_on)


def failed(message: str, resumable: bool) -> str:
    """Say why a run failed, and whether it can go on."""
    words = NO_MEMORY if message.startswith("not enough memory") else in_form_words(message)
    words = words.rstrip(".")
    return f"Failed: {words}. {FROM_CHECKPOINT if resumable else ANEW}"


def in_form_words(message: str) -> str:
    """Name the form's fields instead of the command line's options."""
    labels = {name: field.label.replace("&", "") for name, field in form_fields().items()}
    fields = {f"--{name.replace('_', '-')}": label for name, label in labels.items()}
    more = {"--device": "Device", "--shell": labels["b_value"], "--resume": "Resume"}
    return in_words(message, fields | more)


def _beside(error: float, aligned: float | None) -> tuple[str, str]:
    """Give alignment's error, and what the network gains over it."""
    if not aligned:
        return "", ""
    gain = round(100 * (1 - error / aligned))
    words = f"{abs(gain)} % {'better' if gain > 0 else 'worse'}" if gain else "no better"
    return short(aligned), words


def _cells(row: list[str]) -> str:
    whole = [each.replace(" ", "&nbsp;") for each in row]
    return "".join(f'<td style="padding-right: 6px">{each}</td>' for each in whole)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
