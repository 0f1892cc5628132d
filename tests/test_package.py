"""The package as a whole: its public names, what importing it loads, its manifest."""

import subprocess
import sys
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path

import pytest

import napari_msp

HEAVY = [
    "torch",
    "numpy",
    "scipy",
    "dipy",
    "nibabel",
    "pydantic",
    "matplotlib",
    "napari",
    "magicgui",
    "qtpy",
]
BINDINGS = ["PyQt5", "PyQt6", "PySide2", "PySide6"]


def loaded_by(code: str) -> set[str]:
    """Names of the top-level modules that a fresh interpreter holds after running `code`."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import napari_msp; napari_msp.__version__").isdisjoint(HEAVY + BINDINGS)


def test_data_and_signal_know_no_torch_and_no_viewer():
    code = "import napari_msp as m; m.load_acquisition, m.fit_sh, m.colour_fa, m.load_sh"
    assert loaded_by(code).isdisjoint(["torch", "napari", "qtpy", *BINDINGS])


def test_version_is_the_installed_one():
    assert napari_msp.__version__ == version("napari-msp")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_manifest_is_valid_and_every_command_in_it_exists():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(str(files(napari_msp) / "napari.yaml"))
    manifest.validate_imports()
    assert manifest.name == "napari-msp"
    assert manifest.display_name == "MSP Harmonization"


def test_manifest_is_announced_by_an_entry_point():
    (entry,) = (e for e in entry_points(group="napari.manifest") if e.name == "napari-msp")
    assert entry.value == "napari_msp:napari.yaml"


def test_manifest_at_the_repository_root_leads_to_the_packaged_one():
    at_root = Path(__file__).parents[1] / "napari.yaml"
    # A copy would go stale; a link that is not relative would lead out of other people's clones.
    assert at_root.readlink() == Path("src/napari_msp/napari.yaml")
    assert at_root.is_file()
