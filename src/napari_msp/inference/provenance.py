"""What is written beside a prediction about how it came to be."""

import importlib.metadata
from typing import Any

from napari_msp.data.acquisition import Acquisition
from napari_msp.files import sha256
from napari_msp.inference.harmonize import Prediction
from napari_msp.model_file import Model


def derivative_description(what: str) -> dict[str, Any]:
    """Give the dataset_description.json of a derivative dataset."""
    return {
        "Name": f"napari-msp: {what}",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": "napari-msp", "Version": importlib.metadata.version("napari-msp")}
        ],
    }


def provenance(
    model: Model, acquisition: Acquisition, prediction: Prediction, gradients: str
) -> dict[str, Any]:
    """Give the JSON sidecar of a predicted DWI."""
    return {
        "Description": f"{prediction.target} as predicted from {model.card.input}",
        "Sources": [acquisition.path.name if acquisition.path else "in memory"],
        "Model": {
            "File": model.path.name if model.path else "in memory",
            "Sha256": sha256(model.path) if model.path and model.path.is_file() else None,
            "Kind": model.kind,
            "Label": model.card.label,
            "Alpha": prediction.alpha,
            "TrainingSubjects": model.training.get("subjects"),
            "Versions": model.card.versions,
        },
        "FirstVolume": "the input's b=0 image, interpolated; its TE is not harmonized",
        "Gradients": gradients,
        "Approximations": list(prediction.approximations),
        "GeneratedBy": f"napari-msp {importlib.metadata.version('napari-msp')}",
    }
