"""What the words on the screen mean: every tooltip comes from here."""

import re
from collections.abc import Mapping
from html import escape

TERMS: Mapping[str, str] = {
    "α": "Weight of the second stage in equation (1), from 0 to 1: ŷ²_T = (1−α) ŷ¹_T + "
    "α/(P−1) · (ŷ¹_T + Σ N_iT(z_i)). At 0 the first stage is left as it is, at 1 all P−1 terms "
    "count alike.",
    "SH coefficient": "Weight of one spherical harmonic in the series that says how a voxel's "
    "signal, divided by its b=0 signal, depends on direction. It has no unit; an order-6 "
    "series has 28 of them.",
    "SH order": "Even degree l of the spherical harmonics: l = 0 is proportional to the mean "
    "over directions, higher l is finer angular detail. Order l has 2l+1 coefficients; 0, 2, 4 "
    "and 6 make 28.",
    "SH average": "Mean of the first six SH coefficients (l = 0 and 2), as in Fig. 3a of the "
    "paper. It has no unit.",
    "FA": "Fractional anisotropy of the diffusion tensor: 0 where diffusion is alike in all "
    "directions, towards 1 where it follows one direction only.",
    "colour FA": "Main direction of the diffusion tensor, as strong as its FA: red runs "
    "left-right, green front-back, blue up-down.",
    "mean diffusivity": "Mean of the diffusion tensor's three eigenvalues, in mm²/s: how far "
    "water moves on average, whatever the direction.",
    "fibre direction": "First eigenvector of the diffusion tensor, along which water moves "
    "most: red runs left-right, green front-back, blue up-down. Its sign has no meaning.",
    "angle": "Angle between a predicted direction and the true one in each voxel, from 0 to 90 "
    "degrees; over an image, its mean inside the mask.",
    "b-value": "Strength of the diffusion weighting in s/mm²: the signal of freely moving "
    "water falls as exp(−b·D). Volumes of at most 50 s/mm² count as b=0.",
    "b-vector": "Direction of the diffusion gradient of a volume, of unit length. FSL's .bvec "
    "files hold it along the image's axes; it is turned into scanner axes when it is read.",
    "b=0 threshold": "Largest b-value in s/mm² that counts as b=0: 50, unless a scanner's b=0 "
    "images have more, such as 60 at 7 T.",
    "series": "One image of a scanner's session, with its number and the operator's description. A "
    "folder of DICOM files usually contains several: those that are DWIs are offered.",
    "shell": "All volumes of about the same b-value, taken along different directions. A model "
    "reads the shells that it was trained on.",
    "acquisition": "One scan: its diffusion-weighted and b=0 volumes, their b-values and "
    "directions, and a brain mask.",
    "platform": "A scanner together with a protocol, named by BIDS session and acquisition: "
    "ge_st is session ge, acquisition st.",
    "run": "One of several scans of a head with the same protocol, told apart by BIDS run. They "
    "are never merged.",
    "subject": "A person who was scanned; a travelling head is one who was scanned on every "
    "platform of a study.",
    "input": "Platform that a model predicts from; x is its standardised SH image.",
    "target": "Platform whose image is predicted, T in equation (1).",
    "held-out subject": "A subject kept out of training altogether, from weights and "
    "statistics alike. Only errors on such subjects say how a model does on a new person.",
    "validation subject": "A subject that nothing is learned from, but that decides: a phase of "
    "training ends when the error on such subjects falls no more, and the weights with the "
    "smallest one are kept. How a model does on a new person is said by held-out subjects.",
    "base": "A model whose weights a training starts from, so that few heads go further. "
    "Statistics of platforms are still those of your own heads.",
    "model": "One file with the networks of one or more targets and everything needed to use "
    "them. It holds for scans of the platform, voxel size and b-value that it was trained on.",
    "device": "Where networks compute. auto takes CUDA (NVIDIA), else MPS (Apple), else the "
    "CPU; the result is the same but for rounding.",
    "single network": "A network N_i that predicts the image of platform i from the input "
    "image on its own: ŷ¹_i = N_i(x).",
    "first stage": "ŷ¹_T = N_T(x): what the target's own single network predicts, before any "
    "other platform's network is heard.",
    "second stage": "ŷ²_T: the first stage and the branches, mixed by equation (1) with the "
    "present α. It is the model's prediction.",
    "branch": "N_iT(z_i): two 3D convolutions that predict the target T from the features z_i "
    "of another platform's single network N_i.",
    "contribution": "What a branch adds to the first stage: α/(P−1) · (N_iT(z_i) − ŷ¹_T). The "
    "contributions of all branches and ŷ¹_T add up to ŷ²_T.",
    "features": "z_i: feature map of the single network N_i that the branches read, as a rule "
    "its last one.",
    "CPM stage": "Part of CPM that predicts one platform from the features of the image and "
    "the prediction of the stage before; the last stage predicts the target.",
    "side output": "Prediction of one platform that HNED takes from one depth of its stream; a "
    "1×1×1 convolution fuses all of them to the prediction of the target.",
    "MSE": "Squared difference between a predicted map and the true one in each voxel, "
    "averaged over channels where there are several; over an image, its mean inside the mask.",
    "SH MSE": "Squared difference between predicted and true SH coefficients, averaged over "
    "all 28 in each voxel; over an image, its mean inside the mask. In SH units².",
    "tile": "Part of the image that is computed at once; its edge is counted in input voxels. "
    "Smaller tiles need less memory and more time, and give the same result.",
    "preset": "Recipe of the training. paper: as published, a patch around every voxel of the "
    "mask, for a GPU; fast: large crops in random orientations, in far fewer steps; lecture: "
    "fast made small, to be watched live.",
    "epoch": "A round of training steps, after which validation and held-out subjects are "
    "predicted. paper: one pass over all patches; fast: a thirtieth of a phase.",
    "learning rate": "How far a step moves the weights. paper: divided by √2 every few epochs; "
    "fast: it rises first, then falls to 0.",
    "loss": "What training makes smaller: the mean squared error of standardised SH "
    "coefficients inside the mask (fast: weighed to SH units), summed over all outputs of the "
    "network. Phases with different outputs cannot be compared by it.",
    "statistical alignment": "The line to beat, without any network: each SH coefficient of "
    "the input is brought to the mean and standard deviation that it has on the target "
    "platform over the training subjects.",
    "gradients": "Gradient table: b-value and direction of every volume. A prediction can be "
    "sampled along any directions: its target's, the input's or others.",
    "mask": "Voxels of the brain. Outside nothing is fitted, learned or measured, and outputs "
    "are 0.",
}
"""One or two plain sentences for each term."""


def tooltip(term: str) -> str:
    """Give a term with its meaning as rich text, which Qt breaks into lines.

    Raises
    ------
    KeyError
        When the glossary has no such term.
    """
    meaning = re.sub(r"_(iT|i|T)\b", r"<sub><i>\1</i></sub>", escape(TERMS[term]))
    return f"<p><b>{escape(term)}</b> – {meaning}</p>"
