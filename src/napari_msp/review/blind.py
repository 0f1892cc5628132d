"""Blind review: entries in an order that says nothing, without names, and sides without roles.

Order, names and sides follow from a seed that is kept for the rater, and from each entry's key
alone: what is added later changes nothing that was shown before.
"""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_msp.errors import Advice, UserError
from napari_msp.files import write_json
from napari_msp.review.predictions import FOLDER, Entry
from napari_msp.review.rating_table import check_rater
from napari_msp.strict_json import read_json

Side = Literal["scan", "prediction"]


@dataclass(frozen=True)
class Blind:
    """How entries are shown to a rater who is not to know what they are.

    With `hide_roles` input and prediction are "A" and "B", in an order of each entry's own.
    """

    seed: int
    hide_roles: bool = False

    def ordered(self, entries: Iterable[Entry]) -> list[Entry]:
        """Give entries in the order in which they are shown."""
        return sorted(entries, key=lambda entry: self._digest(entry.key))

    def name(self, entry: Entry) -> str:
        """Give what an entry is called, such as "3f9c-02ab"; always the same."""
        digest = self._digest(entry.key)
        return f"{digest[:4]}-{digest[4:8]}"

    def sides(self, entry: Entry) -> tuple[Side, Side]:
        """Say what "A" and "B" are."""
        turned = self.hide_roles and int(self._digest(entry.key, "side"), 16) % 2
        return ("prediction", "scan") if turned else ("scan", "prediction")

    def _digest(self, key: str, what: str = "order") -> str:
        return hashlib.sha256(f"{self.seed} {what} {key}".encode(errors="replace")).hexdigest()


def open_blind(folder: str | Path, rater: str, *, hide_roles: bool = False) -> Blind:
    """Give how a rater is to be shown a folder: as kept from the first time, else a new seed.

    A change of `hide_roles` keeps the seed.
    """
    check_rater(folder, rater)
    path = Path(folder) / FOLDER / f"rater-{rater}_blind.json"
    seed, kept = secrets.randbelow(2**32), None
    if path.is_file():
        content = read_json(path)
        known, kept = content.get("Seed"), content.get("HideRoles")
        if not isinstance(known, int) or isinstance(known, bool):
            remedy = Advice("repair it, or remove it for a new order")
            raise UserError("has no seed", path, remedy=remedy)
        seed = known
    if kept is not hide_roles:
        write_json(path, {"Seed": seed, "HideRoles": hide_roles})
    return Blind(seed, hide_roles)
