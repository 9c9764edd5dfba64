"""The reliability diagram."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from tshsr.metrics.calibration import calibration_figures
from tshsr.pages.reliability import render_reliability


def test_the_diagram_is_one_svg_with_both_lines_and_the_diagonal() -> None:
    p, y = np.linspace(0.01, 0.99, 60), np.arange(60) % 2 == 0
    svg = ET.fromstring(render_reliability(calibration_figures(p, y), calibration_figures(p / 2, y), "a <title>"))
    paths = [each for each in svg.iter() if each.tag.endswith("path")]
    assert [each.get("class") for each in paths] == ["line-0", "line-1", "line-2"]
    assert len([each for each in svg.iter() if each.tag.endswith("circle")]) == 30
    assert (svg.get("aria-label") or "").startswith("a <title>. ")
    texts = [each.text for each in svg.iter() if each.tag.endswith("text")]
    assert "Perfectly calibrated" in texts
