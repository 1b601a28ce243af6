"""The clinical experiment of Symile's paper: chest X-ray, ECG and laboratory values of Symile-MIMIC.

Saporta et al. 2024, section 5.3; the arrays are on PhysioNet (symile-mimic 1.0.0) for those with access to MIMIC-IV.
Towers and D are those of the authors' code: ResNet-50, ResNet-18 over the ECG as an image of one channel, a perceptron
of 256 and 1,024 over percentiles and indicators of missing values, each with a linear map and LayerNorm to D 8192;
AdamW at a constant rate, O(N) negatives, the X-ray retrieved among ten. Their code gives neither batch size, epochs,
rate nor the scale at the beginning: those here are ours.
"""

from __future__ import annotations

from pathlib import Path

from symile_m3.modalities.declaration import DataConfig, Declaration, DeclaredConfig, ModalityConfig

CXR = ModalityConfig(name="cxr", member=("cxr.npy",), tower="resnet50", shape=(3, 320, 320))
ECG = ModalityConfig(name="ecg", member=("ecg.npy",), tower="resnet18-1d", shape=(1, 5000, 12))
LABS = ModalityConfig(
    name="labs", member=("labs_percentiles.npy", "labs_missingness.npy"), tower="mlp", shape=(100,), hidden=(256, 1024)
)


def clinical(data: Path | str) -> Declaration:
    """The experiment on the arrays in a directory; see `symile_m3.modalities.arrays` for the names of its files."""
    return Declaration(
        data=DataConfig(arrays=str(Path(data).absolute()), candidates=10, retrieve="cxr"),
        config=DeclaredConfig(
            modalities=(CXR, ECG, LABS),
            dim=8192,
            symile_log_scale=-6.0,
            steps=0,
            epochs=80.0,
            batch_size=256,
            lr=1e-4,
            weight_decay=0.01,
            schedule="constant",
            beta2=0.999,
            negatives="n",
            evaluations=80,
        ),
    )
