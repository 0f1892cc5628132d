"""The meanings of the words on the screen: all tooltips of terms come from here."""

import re
from collections.abc import Mapping
from html import escape

TERMS: Mapping[str, str] = {
    "α": "Weight of the second stage in equation (1), from 0 to 1: ŷ²_T = (1−α) ŷ¹_T + α/(P−1) "
    "· (ŷ¹_T + Σ N_iT(z_i)). At 0 the first stage stays as it is, at 1 all P−1 terms count "
    "equally; preset fast trains with α = 1 from the start, preset paper raises it.",
    "SH coefficient": "Weight of one spherical harmonic in the series that describes how a "
    "voxel's signal, divided by its b=0 signal, depends on direction. It has no unit; an "
    "order-6 series has 28 of them.",
    "SH order": "Even degree l of the spherical harmonics: l = 0 is proportional to the mean "
    "over directions, higher l is finer angular detail. Order l has 2l+1 coefficients; orders "
    "0, 2, 4 and 6 together have 28.",
    "SH average": "Mean of the first six SH coefficients (l = 0 and 2), as in Fig. 3a of the "
    "paper. It has no unit.",
    "FA": "Fractional anisotropy of the diffusion tensor: 0 where water diffuses equally in all "
    "directions, near 1 where it diffuses along one direction only.",
    "colour FA": "Main direction of the diffusion tensor as a colour, as bright as its FA: red "
    "runs left-right, green front-back, blue up-down.",
    "mean diffusivity": "Mean of the diffusion tensor's three eigenvalues, in mm²/s: how fast "
    "water diffuses on average, whatever the direction.",
    "fibre direction": "First eigenvector of the diffusion tensor, along which water diffuses "
    "most: red runs left-right, green front-back, blue up-down. Its sign has no meaning.",
    "angle": "Angle between a predicted direction and the true one in each voxel, from 0 to 90 "
    "degrees; over an image, its mean inside the mask.",
    "b-value": "Strength of the diffusion weighting in s/mm²: the signal of freely moving "
    "water falls as exp(−b·D). Volumes of at most 50 s/mm² count as b=0.",
    "b-vector": "Direction of a volume's diffusion gradient, of unit length. FSL's .bvec files "
    "give it along the image's axes; reading turns it into scanner axes.",
    "b=0 threshold": "Largest b-value in s/mm² that counts as b=0: 50, unless you raise it "
    "because a scanner's b=0 images have more, such as 60 at 7 T.",
    "series": "One image of a scanner session, with its number and the operator's description. "
    "A folder of DICOM files usually holds several; those that are DWIs are offered.",
    "shell": "All volumes of about the same b-value, taken along different directions. A model "
    "reads the shells that it was trained on.",
    "acquisition": "One scan: its diffusion-weighted and b=0 volumes, their b-values and "
    "directions, and a brain mask.",
    "platform": "A scanner together with a protocol, named by BIDS session and acquisition: "
    "ge_st is session ge, acquisition st.",
    "run": "One of several scans of a head with the same protocol, which BIDS tells apart by "
    "their run. They are never merged.",
    "subject": "A person who was scanned; a travelling head is a person who was scanned on "
    "every platform of a study.",
    "input": "Platform that a model predicts from; x is its standardised SH image.",
    "target": "Platform that a model predicts, T in equation (1).",
    "held-out subject": "A subject kept out of training altogether, who affects neither weights "
    "nor statistics. Only errors on such subjects say how a model does on a new person.",
    "validation subject": "A subject that nothing is learned from but that decides: a phase of "
    "training ends when the error on such subjects stops falling, and the weights with the "
    "smallest error are kept. Only held-out subjects say how a model does on a new person.",
    "base": "A model whose weights training starts from, so that a few heads get further. The "
    "statistics of the platforms still come from your own heads.",
    "model": "One file with the networks for one or more targets and everything needed to use "
    "them. It is valid for scans of the platform, voxel size and b-value that it was trained "
    "on.",
    "device": "Where networks compute. auto takes CUDA (NVIDIA), else MPS (Apple), else the "
    "CPU; results differ only by rounding.",
    "single network": "A network N_i that predicts the image of platform i from the input "
    "image on its own: ŷ¹_i = N_i(x).",
    "first stage": "ŷ¹_T = N_T(x): what the target's own single network predicts, before any "
    "other platform's network contributes.",
    "second stage": "ŷ²_T: the first stage and the branches, mixed by equation (1) with the "
    "current α. It is the model's prediction.",
    "branch": "N_iT(z_i): two 3D convolutions that predict the target T from the features z_i "
    "of another platform's single network N_i.",
    "contribution": "What a branch adds to the first stage: α/(P−1) · (N_iT(z_i) − ŷ¹_T). The "
    "contributions of all branches and ŷ¹_T add up to ŷ²_T.",
    "features": "z_i: feature map of the single network N_i that the branches read, usually its "
    "last one.",
    "CPM stage": "Part of CPM that predicts one platform from the features of the image and the "
    "prediction of the previous stage; the last stage predicts the target.",
    "side output": "Prediction of one platform that HNED takes from one depth of its stream; a "
    "1×1×1 convolution fuses all of them into the prediction of the target.",
    "MSE": "Squared difference between a predicted map and the true one in each voxel, "
    "averaged over channels where there are several; over an image, its mean inside the mask.",
    "SH MSE": "Squared difference between predicted and true SH coefficients, averaged over "
    "all 28 in each voxel; over an image, its mean inside the mask. In SH units².",
    "tile": "Part of the image that is computed at once; its edge is counted in input voxels. "
    "Smaller tiles need less memory and more time, and give the same result.",
    "preset": "Recipe of the training. paper: as published, a patch around every voxel of the "
    "mask, for a GPU; fast: large crops in random orientations, in far fewer steps; lecture: "
    "a small version of fast, to be watched live.",
    "epoch": "A round of training steps, after which validation and held-out subjects are "
    "predicted. paper: one pass over all patches; fast: one thirtieth of a phase.",
    "learning rate": "How far one step moves the weights. paper: divided by √2 every few "
    "epochs; fast: it rises first, then falls to 0.",
    "loss": "What training makes smaller: the mean squared error of standardised SH "
    "coefficients inside the mask (fast: weighted to SH units), summed over all outputs of "
    "the network. Do not compare it between phases with different outputs.",
    "statistical alignment": "The line to beat, which needs no network: it brings each SH "
    "coefficient of the input to the mean and standard deviation that the training subjects "
    "have on the target platform.",
    "gradients": "Gradient table: b-value and direction of every volume. A prediction can be "
    "sampled along any directions: the target's, the input's or others.",
    "mask": "Voxels of the brain. Outside it nothing is fitted, learned or measured, and "
    "outputs are 0.",
}
"""Meanings, one or two plain sentences for each term."""


def tooltip(term: str) -> str:
    """Return a term and its meaning as rich text, which Qt breaks into lines.

    Raises
    ------
    KeyError
        If the glossary has no such term.
    """
    meaning = re.sub(r"_(iT|i|T)\b", r"<sub><i>\1</i></sub>", escape(TERMS[term]))
    return f"<p><b>{escape(term)}</b> – {meaning}</p>"
