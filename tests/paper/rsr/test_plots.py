"""The figure holds a panel per student and a row per score."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd

from lalp.paper.rsr.correlate import correlate
from lalp.paper.rsr.plots import plot_correlations
from lalp.paper.rsr.published import published_scores


def test_panels_rows_and_published_marks():
    known = correlate(published_scores(), num_resamples=50)
    other = published_scores().query("score == 'galp'")
    parts = [other, other.assign(score="lalp@4"), other.assign(score="lalp-casl@4")]
    found = correlate(pd.concat(parts), num_resamples=50)
    figure = plot_correlations(found, known)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown][-1] == "mean over students"
    labels = [text.get_text() for text in shown[0].get_yticklabels()]
    assert labels == ["GALP", "LALP, w = 4", "LALP, CASL, w = 4"]
    own, published = shown[0].collections[1:]
    assert len(own.get_offsets()) == 3 and len(published.get_offsets()) == 1
    assert published.get_offsets()[0].tolist() == own.get_offsets()[0].tolist()
    plt.close(figure)
