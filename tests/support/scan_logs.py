"""An evaluation log of the VSE++, SCAN and SGRAF family, and its parts."""

from __future__ import annotations

I2T = [
    (79.0, 96.0, 98.5, 1.0, 2.0),
    (80.0, 97.0, 99.1, 1.0, 2.2),
    (78.4, 95.9, 98.7, 1.0, 2.3),
    (79.6, 96.4, 98.9, 1.0, 2.1),
    (78.8, 96.1, 98.8, 1.0, 2.2),
]
T2I = [
    (63.0, 90.0, 95.5, 1.0, 5.0),
    (64.0, 91.0, 96.1, 1.0, 5.2),
    (62.4, 89.7, 95.2, 1.0, 5.9),
    (63.3, 90.4, 95.7, 1.0, 5.3),
    (62.9, 90.1, 95.4, 1.0, 5.6),
]


def means(rows: list[tuple[float, ...]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


AR, ARI = sum(means(I2T)[:3]) / 3, sum(means(T2I)[:3]) / 3
RSUM = 3 * (AR + ARI)


def folds(commas: str = ", ", aggregates: bool = True) -> list[str]:
    """The lines of the folds."""
    lines = []
    for own, other in zip(I2T, T2I, strict=True):
        lines.append("Image to text: " + commas.join(f"{figure:.1f}" for figure in own))
        lines.append("Text to image: " + commas.join(f"{figure:.1f}" for figure in other))
        if aggregates:
            ar, ari = sum(own[:3]) / 3, sum(other[:3]) / 3
            lines.append(f"rsum: {3 * (ar + ari):.1f} ar: {ar:.1f} ari: {ari:.1f}")
    return lines


def summary(rsum: float, ar: float, ari: float) -> list[str]:
    """The lines of the mean, with figures under its labels as given."""
    return [
        "-----------------------------------",
        "Mean metrics: ",
        f"rsum: {rsum:.1f}",
        f"Average i2t Recall: {ar:.1f}",
        "Image to text: " + " ".join(f"{figure:.1f}" for figure in means(I2T)),
        f"Average t2i Recall: {ari:.1f}",
        "Text to image: " + " ".join(f"{figure:.1f}" for figure in means(T2I)),
    ]


HEAD = ["=> loading checkpoint", "Computing results...", "Images: 5000, Captions: 25000"]
SCAN = "\n".join([*HEAD, *folds(), *summary(6 * AR, ARI, RSUM)])
