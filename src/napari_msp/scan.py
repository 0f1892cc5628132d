"""A scan from load to save: the acquisition, its SH image, its maps, and its metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from napari_msp.bids import (
    absolute,
    bare_stem,
    dataset_root,
    describe_derivative,
    entities,
    platform_of,
    subject_and_platform,
)
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.contradictions import are_parts
from napari_msp.data.dataset import open_dataset
from napari_msp.data.gradients import Shell, same_shell, shell_name
from napari_msp.data.nifti import write_nifti
from napari_msp.errors import Advice, Choose, Overwrite, UserError
from napari_msp.files import staged_folder
from napari_msp.identity import Person, person_of
from napari_msp.image_files import COEFFICIENTS, ImageFile
from napari_msp.provenance import Provenance, source_path
from napari_msp.signal.fitting import (
    fit_sh,
    scheme_doubt,
    shells_for_maps,
    unfit_for_sh,
)
from napari_msp.signal.maps import MAPS, Maps
from napari_msp.signal.sh_image import SHImage, write_sh

if TYPE_CHECKING:
    import nibabel as nib

    from napari_msp.arrays import MaskArray
    from napari_msp.data.lattice import Lattice

Route = Literal["signal", "sh"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Scan:
    """One image of one head, measured or predicted, from load to save.

    Made from an acquisition, to which SH are fitted on first use, or from an SH image. A scan of
    several shells is composed of scans of one shell, see `by_shell`.

    Attributes
    ----------
    acquisition
        The DWI; None for an SH image.
    given_sh
        The SH image, or one per shell by name; None for an acquisition.
    shell
        b-value of the acquisition's shell in s/mm², or those of several; None: all.
    path
        The file that it was read from; None if in memory.
    given_subject, given_platform
        Names of a scan in memory; None: taken from the file's name.
    provenance
        How a predicted image was made; None for a measured one.
    """

    acquisition: Acquisition | None = None
    given_sh: SHImage | Mapping[int, SHImage] | None = None
    shell: float | Sequence[float] | None = None
    path: Path | None = None
    given_subject: str | None = None
    given_platform: str | None = None
    provenance: Provenance | None = None
    _maps: dict[Route, Maps] = field(default_factory=dict, init=False)
    _at_other_shells: dict[int, Self] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.acquisition is None and self.given_sh is None:
            raise ValueError("a scan needs an acquisition or an SH image")
        if isinstance(self.given_sh, Mapping):
            first, *others = self.given_sh.values()
            if not all(first.lattice.matches(other.lattice) for other in others):
                raise ValueError("the shells of a scan must lie on one lattice")

    def __repr__(self) -> str:
        kind = "measured" if self.provenance is None else "predicted"
        return f"<{type(self).__name__} {self.owner or 'in memory'}, {kind}: {self._image!r}>"

    @property
    def _image(self) -> Acquisition | SHImage:
        """The object that it was made from."""
        image = self.acquisition if self.given_sh is None else self.given_sh
        if isinstance(image, Mapping):
            image = next(iter(image.values()))
        assert image is not None
        return image

    @cached_property
    def shells(self) -> tuple[int, ...]:
        """Names of its shells, lowest b-value first; empty for an SH image of unknown b-value."""
        if isinstance(self.given_sh, Mapping):
            return tuple(self.given_sh)
        if self.given_sh is not None:
            known = self.given_sh.b_value
            return () if known is None else (shell_name(known),)
        return tuple(shell.name for shell in self._chosen)

    @cached_property
    def _chosen(self) -> list[Shell]:
        """The chosen shells of the acquisition."""
        assert self.acquisition is not None
        return shells_for_maps(self.acquisition, self.shell)

    @property
    def _scheme_doubts(self) -> list[str]:
        """Texts on schemes that hardly determine the SH that were fitted."""
        assert self.acquisition is not None
        directions = (self.acquisition.directions(shell) for shell in self._chosen)
        return [doubt for each in directions if (doubt := scheme_doubt(each, self.sh.order))]

    @property
    def _left_out(self) -> tuple[str, ...]:
        """Reasons why shells were left out unasked, in words."""
        if self.acquisition is None or self.shell is not None:
            return ()
        unfit = unfit_for_sh(self.acquisition.gradients)
        return tuple(f"{why}: it is left out" for why in unfit.values())

    def by_shell(self) -> dict[int, Self]:
        """Return scans of one shell each, by shell name; itself if there is only one."""
        if len(self.shells) < 2:
            return dict.fromkeys(self.shells, self)
        return dict(self._by_shell)

    @cached_property
    def _by_shell(self) -> dict[int, Self]:
        if isinstance(self.given_sh, Mapping):
            return {name: replace(self, given_sh=image) for name, image in self.given_sh.items()}
        return {shell.name: replace(self, shell=shell.b_value) for shell in self._chosen}

    def at_shell(self, b_value: float | None = None) -> Self:
        """Return the scan of one shell, to within 5 % of a b-value; None: the only shell.

        Raises
        ------
        UserError
            When there is no such shell, or there are several to choose from.
        """
        if len(self.shells) < 2:
            return self
        known = ", ".join(map(str, self.shells))
        problem = f"has several shells (b = {known})"
        if b_value is not None:
            # By the shell's own mean, of which its name is the rounded value.
            means = {name: one.b_value or name for name, one in self._by_shell.items()}
            nearest = min(means, key=lambda name: abs(means[name] - b_value))
            if same_shell(b_value, means[nearest]) or b_value == nearest:
                return self._by_shell[nearest]
            problem = f"has no shell near b = {b_value:.0f} (it has {known})"
        name = self.path or self.owner or "scan"
        raise UserError(problem, name, "b_value", Choose("b_value", self.shells))

    def at_other_shell(self, shell: Shell) -> Self:
        """Return a scan of any shell of its acquisition, chosen or not; always the same object."""
        return self._at_other_shells.setdefault(shell.name, replace(self, shell=shell.b_value))

    @cached_property
    def sh(self) -> SHImage:
        """The SH image of the only shell in stored order, fitted once.

        For a prediction's DWI it is the image that the DWI was written from, as far as its
        directions determine it: it is fitted without regularisation.

        Raises
        ------
        UserError
            When there are several shells; each has its own, see `by_shell` and `at_shell`.
        """
        self.at_shell()
        if isinstance(self.given_sh, SHImage):
            return self.given_sh
        if self.given_sh is not None:
            return next(iter(self.given_sh.values()))
        assert self.acquisition is not None
        b_value = self._chosen[0].b_value
        if self.provenance is None:
            return fit_sh(self.acquisition, b_value=b_value)
        # The written signal comes from an SH image that regularisation has shrunk already.
        image = fit_sh(self.acquisition, b_value=b_value, regularisation=0.0)
        return replace(image, regularisation=None)

    def maps(self, route: Route | None = None) -> Maps:
        """Return all maps of the only shell, computed on first use and kept.

        Parameters
        ----------
        route
            "signal": tensors are fitted to the DWI's signal. "sh": to the signal of the SH series,
            which lowers FA; images are compared by these, as predictions are SH series. None: by
            the signal of a DWI, as `save` writes them, else by the SH series.

        Raises
        ------
        UserError
            When there are several shells.
        """
        if route is None:
            route = "sh" if self.acquisition is None else "signal"
        if route not in self._maps:
            self._maps[route] = Maps(self.sh, self.acquisition if route == "signal" else None)
        return self._maps[route]

    @property
    def lattice(self) -> Lattice:
        """Lattice of its voxels, in stored order."""
        return self._image.lattice

    @property
    def mask(self) -> MaskArray:
        """(X, Y, Z) brain mask."""
        return self._image.mask

    @cached_property
    def b_value(self) -> float | None:
        """b-value of the SH image's signal in s/mm²; None if the file did not say."""
        self.at_shell()
        if self.acquisition is None or self.given_sh is not None:
            return self.sh.b_value
        return self._chosen[0].b_value

    @property
    def subject(self) -> str:
        """Subject, such as "sub-01"; the file's stem if neither name nor sidecar has one."""
        if self.given_subject is not None:
            return self.given_subject
        if self.path is None:
            return ""
        label = entities(self.path).get("sub")
        if label:
            return f"sub-{label}"
        made = self.provenance
        known = "" if made is None or made.person is None else Person.from_json(made.person).label
        return known or bare_stem(self.path)

    @property
    def platform(self) -> str:
        """The platform that it was scanned on, or that it predicts; empty if unknown."""
        if self.given_platform is not None:
            return self.given_platform
        if self.provenance is not None:
            return self.provenance.target
        if self.path is None:
            return ""
        return platform_of(self.path)

    @property
    def name(self) -> str:
        """Name among its subject's images: "ge_st", or "MSP prisma_st" for a prediction."""
        if self.provenance is not None:
            return self.provenance.name
        description = "" if self.path is None else entities(self.path).get("desc", "")
        return f"{self.platform} {description}".strip()

    @property
    def owner(self) -> str:
        """Subject and name, such as "sub-01 ge_st": the first part of its layers' names."""
        return f"{self.subject} {self.name}".strip()

    @property
    def label(self) -> str:
        """The model of a prediction, such as "MSP"; empty for a measured scan."""
        return "" if self.provenance is None else self.provenance.title

    @cached_property
    def siblings(self) -> Mapping[str, Path]:
        """Scans of the same person on other platforms of its dataset, by platform.

        For a prediction on disk: all scans of the dataset that it was made from.
        """
        if self.path is None:
            return {}
        if self.provenance is None:
            return _scanned_elsewhere(self.path)
        root = dataset_root(self.path) or absolute(self.path).parent
        try:
            found = [source_path(each, root) for each in self.provenance.sources]
        except UserError:  # the description is damaged
            return {}
        source = next(filter(None, found), None)
        known = None if source is None else subject_and_platform(source)
        if source is None or known is None:
            return {}
        return {known[1]: source, **_scanned_elsewhere(source)}

    @cached_property
    def person(self) -> Person:
        """The person whose head it is, see `identity`."""
        if self.provenance is not None and self.provenance.person is not None:
            return Person.from_json(self.provenance.person)
        if self.path is None:
            return Person(self.subject)
        return person_of(self.path, self.siblings.values())

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Texts that matter when it is compared."""
        if self.path is None:
            return ()
        name = self.path.name
        found = [f"{name}: {why}" for why in self._left_out]
        if len(self.shells) > 1:
            return (*found, *(note for one in self._by_shell.values() for note in one.notes))
        if self.acquisition is not None:
            found += [f"{name}: {doubt}" for doubt in self.acquisition.said()]
            found.append(f"{name}: SH of order {self.sh.order} were fitted to the scan")
            found += [f"{name}: {doubt}" for doubt in self._scheme_doubts]
        if self.sh.rescaled_from is not None:
            found.append(
                f"{name}: its signal was rescaled from b = {self.sh.rescaled_from:g} to "
                f"{self.sh.b_value:g} s/mm² as if decay were mono-exponential (approximate)"
            )
        return tuple(found)

    def save(self, folder: str | Path, *, force: bool = False) -> list[Path]:
        """Write the SH image and every map as `<entities>_model-<m>_param-<p>_dwimap.nii.gz`.

        FA and related maps are computed from the measured signal if there is one. Each of several
        shells has files of its own, distinguished by their `desc` entity, see `ImageFile`.

        Parameters
        ----------
        folder
            Destination folder, created if missing.
        force
            Whether to replace existing files; an earlier run's maps of other shells are removed,
            too.

        Returns
        -------
        The files: the SH image, then the maps in the order of `MAPS`.

        Raises
        ------
        UserError
            When a file cannot be written; nothing is written then.
        """
        out, stem = Path(folder), self.file_stem
        parts: list[tuple[int | None, Scan]] = [(None, self)]
        if len(self.shells) > 1:
            parts = [*self._by_shell.items()]
        names = [name for shell, _ in parts for name in _file_names(stem, shell)]
        for name in names:
            if (out / name).exists() and not force:
                raise UserError("exists already", out / name, remedy=Overwrite())
        if self.acquisition is not None:
            self.acquisition.tell(self.acquisition.doubts)
        with staged_folder(out, replaced=self._older(out) if force else None) as stage:
            root = None if self.path is None else dataset_root(self.path)
            describe_derivative(stage, out, "Maps of diffusion scans", root, flat=True)
            for shell, one in parts:
                one._write(stage, _file_names(stem, shell), self._left_out)
            if self.acquisition is not None:
                self.acquisition.save_estimated_mask(stage, stem)
        return [out / name for name in names]

    def _older(self, out: Path) -> Callable[[str], bool] | None:
        """Return which maps an earlier run may have made of it, of any shell."""
        place = None if self.path is None else absolute(self.path).parent
        if self.provenance is not None and absolute(out) == place:
            return None  # SH images there are what `harmonize` predicted
        names = _file_names(self.file_stem)

        def is_older(name: str) -> bool:
            file = ImageFile.parse(name)
            if file is None or file.suffix not in (".nii.gz", ".json"):
                return False
            file = replace(file, suffix=".nii.gz")
            return str(file) in names or str(replace(file, shell=None)) in names

        return is_older

    def _write(self, folder: Path, names: Sequence[str], doubts: Sequence[str]) -> None:
        """Write the files of one shell; the sidecar contains the doubts about the whole scan."""
        maps = self.maps()
        like: nib.Nifti1Image | None = None if self.acquisition is None else self.acquisition.image
        write_sh(folder / names[0], self.sh, self.sidecar(doubts), like=like)
        for name, each in zip(names[1:], MAPS, strict=True):
            write_nifti(folder / name, maps[each], self.sh.affine, like=like)

    def sidecar(self, of_whole: Sequence[str] = ()) -> dict[str, Any]:
        """Return what the SH image's sidecar says about its scan.

        For a prediction, how it was made; for a measured scan, what was used, doubted and left out.

        Parameters
        ----------
        of_whole
            Doubts about the whole scan, of which this is one shell.
        """
        if self.provenance is not None:
            return self.provenance.to_sidecar()
        scan = self.acquisition
        if scan is None:
            return {}
        doubts = [*scan.said(), *of_whole, *self._scheme_doubts]
        return {"Inputs": list(scan.provenance), "Warnings": doubts}

    @property
    def file_stem(self) -> str:
        """Beginning of its files' names.

        Raises
        ------
        UserError
            When it was made in memory and has no name.
        """
        if self.path is not None:
            file = ImageFile.parse(self.path)
            if file is None or not file.is_sh:
                return bare_stem(self.path)
            several = isinstance(self.given_sh, Mapping)
            return (replace(file, shell=None) if several else file).beginning
        if self.given_subject:
            return self.given_subject
        remedy = Advice("write it to a file and load it from there, or name its subject")
        raise UserError("was made in memory, so its files have no name", "scan", remedy=remedy)


def _scanned_elsewhere(path: Path) -> dict[str, Path]:
    """Return scans of the same person on other platforms of the dataset, by platform.

    Of a repeated scan it is the run of the same number as this one's, else the first.
    """
    known, root = subject_and_platform(path), dataset_root(path)
    if known is None or root is None:
        return {}
    subject, own = known
    try:
        dataset = open_dataset(root, subject, first_run=True, undecided=[])
    except UserError:  # the scan lies somewhere else in the dataset
        return {}
    run, found = entities(path).get("run", "").lstrip("0"), dict[str, Path]()
    for (who, platform), first in sorted(dataset.scans.items()):
        runs = dataset.runs.get((who, platform), {"": first})
        if platform != own and not are_parts([*runs.values()]):  # a part is not the scan
            found[platform] = runs.get(run, first)
    return found


def _file_names(stem: str, shell: int | None = None) -> list[str]:
    """Return the names of the SH image and all maps."""
    maps = ((each.parameter, each.model) for each in MAPS.values())
    files = [ImageFile(stem, what, shell, model=model) for what, model in maps]
    return [*map(str, (ImageFile(stem, COEFFICIENTS, shell), *files))]
