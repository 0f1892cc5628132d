# The one list of public names; `__init__.py` imports each when it is first used.

from .alignment.align import align
from .checking.dataset import check
from .cohort import run_cohort
from .data.acquisition import Acquisition, load_acquisition
from .data.importers import ImportSettings, import_dicom, import_tree
from .data.phantom.simulate import simulate
from .errors import UserError
from .evaluation.baselines.combat import learn_scanner_effect
from .evaluation.benchmark.settings import EvaluationSettings
from .evaluation.calibration import calibrate
from .evaluation.compare import CompareResult, ShellResult, compare
from .evaluation.evaluate import evaluate
from .evaluation.figures.paper import figure3
from .evaluation.proof.two_groups import group_tables
from .evaluation.proof.two_groups_numbers import group_difference
from .evaluation.region_numbers import measure_regions
from .inference.harmonize import harmonize
from .inference.prediction import Prediction
from .learning.settings import TrainingSettings
from .learning.train import train
from .model_file import Model, load_model
from .options import Options
from .review.predictions import open_review
from .review.ratings import Ratings, merge_ratings
from .review.report import review_report
from .scan import Scan
from .scan_sources import load_scan
from .signal.fitting import evaluate_sh, fit_sh
from .signal.maps import colour_fa, fractional_anisotropy, sh_average, squared_error
from .signal.sh_image import SHImage, load_sh, write_sh

__version__: str

__all__ = [
    "Acquisition",
    "CompareResult",
    "EvaluationSettings",
    "ImportSettings",
    "Model",
    "Options",
    "Prediction",
    "Ratings",
    "SHImage",
    "Scan",
    "ShellResult",
    "TrainingSettings",
    "UserError",
    "__version__",
    "align",
    "calibrate",
    "check",
    "colour_fa",
    "compare",
    "evaluate",
    "evaluate_sh",
    "figure3",
    "fit_sh",
    "fractional_anisotropy",
    "group_difference",
    "group_tables",
    "harmonize",
    "import_dicom",
    "import_tree",
    "learn_scanner_effect",
    "load_acquisition",
    "load_model",
    "load_scan",
    "load_sh",
    "measure_regions",
    "merge_ratings",
    "open_review",
    "review_report",
    "run_cohort",
    "sh_average",
    "simulate",
    "squared_error",
    "train",
    "write_sh",
]
