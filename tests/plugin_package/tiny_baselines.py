"""The smallest baseline there can be."""

from dataclasses import replace

from napari_msp.evaluation.baselines.base import Baseline
from napari_msp.evaluation.line_up import on_lattice


class Dimming(Baseline):
    """Scale the whole image to the target's brightness."""

    name = "dimming"
    summary = "One factor for all coefficients."

    def fit(self, inputs, targets):
        def brightness(images):
            return sum(each.coefficients[each.mask][:, 0].mean() for each in images)

        self.factor = brightness(targets) / brightness(inputs)
        return self

    def predict(self, image, lattice):
        moved = on_lattice(image, lattice)
        return replace(moved, coefficients=moved.coefficients * self.factor)
