"""What README and handbook tell people to type is what commands, library and shell take.

Code is in blocks of three backticks, or, in the README, of four spaces. What cannot be run says so
in a comment before it; all else is run, by slow tests, on small simulated heads.
"""

import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import napari_msp as msp
from napari_msp import packaged
from napari_msp.cli import COMMANDS, build_parser, main
from napari_msp.commands.shared import add_console_options
from napari_msp.evaluation.benchmark.methods import all_methods
from napari_msp.networks.registry import kinds

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
PAGES = [
    README,
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "src/napari_msp/help").glob("*.md")),
]
TEXTS = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8") for path in PAGES
}
"""Every page by its path."""

EVERYTHING = "\n".join(TEXTS.values())

FENCED = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.M | re.S,
)
INDENTED = re.compile(r"(?:^    .*\n)+", re.M)
CODE = ("bash", "python")
OTHERS = ("toml", "console")
"""Languages of what nobody types."""


@dataclass(frozen=True)
class Block:
    """Code of a page; `why` says why it is not run, if it is not."""

    page: str
    number: int
    language: str
    code: str
    why: str

    @property
    def lines(self) -> Iterator[str]:
        """Each command in a line, without comments."""
        for line in self.code.replace("\\\n", " ").splitlines():
            yield line.split("  #")[0].strip().removeprefix("exec ")


def blocks() -> Iterator[Block]:
    for page, text in TEXTS.items():
        found: dict[int, Block] = {}
        """By where they begin: what one makes the next may need."""
        for number, each in enumerate(FENCED.finditer(text), 1):
            found[each.start()] = Block(
                page, number, each["language"], each["code"], each["why"] or ""
            )
        if page == "README.md":
            others = FENCED.sub(lambda each: "-" * len(each[0]), text)
            for number, each in enumerate(INDENTED.finditer(others), 101):
                code = re.sub("^    ", "", each[0], flags=re.M)
                why = "" if "napari-msp " in code else "installs"
                found[each.start()] = Block(page, number, "bash", code, why)
        yield from (found[place] for place in sorted(found))


BLOCKS = list(blocks())
SHELL = [each for each in BLOCKS if each.language == "bash"]
PYTHON = [each for each in BLOCKS if each.language == "python"]
TYPED = sorted(
    {(b.page, line) for b in SHELL for line in b.lines if line.startswith("napari-msp ")}
)
RUN = sorted({each.page for each in BLOCKS if each.language in CODE and not each.why})
SHORT: dict[str, Any] = {
    "epochs": 1,
    "unison_epochs": 1,
    "steps_per_epoch": 1,
    "crop": 5,
    "batch": 1,
}
"""Settings that make a training take seconds."""


def named(each: Block) -> str:
    return f"{each.page}-{each.number}"


# --- What is typed can be typed --------------------------------------------------------------


def test_every_command_is_in_the_handbook():
    typed = {shlex.split(line)[1] for _, line in TYPED}
    mentioned = set(re.findall(r"napari-msp (\w+)", EVERYTHING))
    assert set(COMMANDS) <= typed | mentioned
    assert "make demo" in TEXTS["README.md"]
    assert "make test" in TEXTS["README.md"]


def test_every_block_has_a_language_that_is_known():
    assert {each.language for each in BLOCKS} <= {*CODE, *OTHERS}
    for page, text in TEXTS.items():
        marked = [each for each in BLOCKS if each.page == page and each.why and each.number < 100]
        assert len(re.findall("^<!-- not run: ", text, re.M)) == len(marked), page


@pytest.mark.parametrize(("page", "line"), TYPED)
def test_commands_parse(page, line):
    if line in ("napari-msp --version",):
        return
    line = line.replace("$subject", "sub-01").replace("$resume", "--resume")
    options = build_parser(shlex.split(line)[1]).parse_args(shlex.split(line)[1:])
    assert options.command == shlex.split(line)[1]


@pytest.mark.parametrize("block", SHELL, ids=named)
def test_shell_is_shell(block):
    subprocess.run(["bash", "-n", "-c", block.code], check=True)


@pytest.mark.parametrize("block", PYTHON, ids=named)
def test_python_is_python(block):
    compile(block.code, block.page, "exec")


def test_options_exist():
    parser = ArgumentParser(conflict_handler="resolve")
    for command in COMMANDS.values():
        command.add_options(parser)
    add_console_options(parser)
    known = set(parser._option_string_actions)
    found = set(re.findall(r"`(-{1,2}[a-z][\w-]*)", EVERYTHING))
    others = {"--version", "--help", "--index-url"}
    assert found
    assert found - known - others == set()


def test_methods_and_networks_are_those_that_there_are():
    pages = TEXTS["docs/how-to/train.md"] + TEXTS["docs/how-to/evaluate.md"]
    rows = re.findall(r"^\| (`[^|]*`) \|", pages, re.M)
    found = {name.strip('"') for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert {*kinds(), *all_methods()} <= found


# --- What is named is there ------------------------------------------------------------------


def test_paths_of_the_repository_exist():
    found = set(re.findall(r"(?:src|scripts|benchmarks|docs|tests)/[\w./-]+\.\w+", EVERYTHING))
    assert found
    assert [name for name in found if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page):
    """Links within the handbook are the handbook's builder's to check."""
    links = re.findall(r"\]\(([^)#]+)\)", TEXTS[page])
    here = [link for link in links if "://" not in link]
    assert [link for link in here if not (REPOSITORY / link).exists()] == []


def test_errors_are_quoted_in_their_own_words():
    """Troubleshooting quotes what stands in the source, up to what is put in for "…"."""
    sources = (REPOSITORY / "src/napari_msp").rglob("*.py")
    said = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    said = re.sub(r'"\n\s*f?"', "", said)  # strings that go on in the next line
    page = TEXTS["docs/reference/troubleshooting.md"]
    quoted = re.findall(r"^\| `([^`]+)` \|", page, re.M)
    assert len(quoted) > 30
    parts = {part.strip() for each in quoted for part in each.split("…") if part.strip()}
    assert {part for part in parts if part not in said} == set()


def test_every_public_name_is_in_the_reference():
    listed = re.findall(r"^\.\. auto\w+:: (\w+)$", TEXTS["docs/reference/api.md"], re.M)
    assert sorted([*listed, "__version__"]) == sorted(msp.__all__)


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 110


# --- It runs ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What commands of the pages find: heads, the demo's, a model, a folder of predictions."""
    folder = tmp_path_factory.mktemp("workshop")
    msp.simulate(folder / "heads", subjects=4, size="tiny")
    quick: dict[str, Any] = {**SHORT, "width": 0.05, "held_out": ["sub-04"]}
    msp.train(folder / "heads", folder / "msp.safetensors", start_from="nothing", **quick)
    return folder


@pytest.fixture
def here(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be where somebody stands who reads a page."""
    for name in ("heads", "msp.safetensors"):
        (tmp_path / name).symlink_to(workshop / name)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/heads").symlink_to(workshop / "heads")
    (tmp_path / "src").symlink_to(REPOSITORY / "src")
    monkeypatch.chdir(tmp_path)
    train: Any = msp.train

    def train_shortly(*given: Any, minutes: float | None = None, **words: Any) -> Any:
        return train(*given, **words, **SHORT)

    monkeypatch.setattr(msp, "train", train_shortly)
    monkeypatch.setattr(packaged, "BASE", "base.safetensors")  # other tests do without
    return tmp_path


def shortened(line: str) -> list[str]:
    """Cut trainings short, and let what is there be replaced."""
    words = shlex.split(line)[1:]
    if words[0] == "simulate" and words[1] == "heads":
        words[1] = "own-heads"  # `heads` are there
    if words[0] == "train":
        if "--minutes" in words:
            at = words.index("--minutes")
            words[at : at + 2] = []
        if "--steps" not in words:
            words += ["--steps", "2"]
        words = ["2" if word == "300" else word for word in words]
        if "msp" in words or "--model" not in words:
            words += ["--unison-steps", "2"]
        words += ["--crop", "5", "--batch", "1", "--force"]
    return words


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # doubts of data this small are right
@pytest.mark.parametrize("page", RUN)
def test_a_page_runs(page, here):
    """Its commands and snippets, in their order; what one writes the next may read."""
    for block in BLOCKS:
        if block.page != page or block.why:
            continue
        if block.language == "python":
            exec(compile(block.code, page, "exec"), {})
        elif block.language == "bash":
            for line in block.lines:
                if line.startswith("napari-msp ") and line != "napari-msp --version":
                    assert main(shortened(line)) in (0, 1), line


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Jupyter's own
def test_the_notebook_runs(tmp_path):
    """Its figures and numbers come from its cells; nothing of the machine is kept in them."""
    nbformat = pytest.importorskip("nbformat", reason="of the extra `docs`")
    from nbclient import NotebookClient

    path = REPOSITORY / "docs/tutorial/arrays.ipynb"
    notebook = nbformat.read(path, 4)
    kept = _results(notebook)
    assert sum("image/png" in result for result in kept) >= 2
    assert path.stat().st_size < 300_000
    text = path.read_text(encoding="utf-8")
    assert str(REPOSITORY) not in text
    assert "ipykernel_" not in text
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    now = _results(notebook)
    assert sum("image/png" in result for result in now) >= 2
    assert [result["text/plain"] for result in now] == [result["text/plain"] for result in kept]


def _results(notebook):
    return [
        output["data"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "data" in output
    ]


@pytest.mark.slow
def test_the_handbook_is_built(tmp_path):
    """With every warning as an error: of links, pictures, and docstrings."""
    pytest.importorskip("myst_nb", reason="of the extra `docs`")
    options = ("-W", "--keep-going", "-q", "-d", tmp_path / "doctrees")
    command = [sys.executable, "-m", "sphinx", *options, REPOSITORY / "docs", tmp_path / "handbook"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in ("index", "reference/commands", "reference/api", "window/harmonize"):
        assert (tmp_path / "handbook" / f"{page}.html").exists()
