"""A picture of a run: time and peak memory of each way against the number of events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, StrMethodFormatter

from benchmarks.timing import Timing

OURS = "#d1495b"
# As many as there are other ways, so that no two look the same.
OTHERS = ("#edae49", "#66a182", "#8d96a3", "#b08968", "#2e4057", "#00798c", "#4f7cac", "#9b72cf")


def plot(
    timings: Mapping[str, Mapping[str, Timing]], labels: Mapping[str, tuple[str, bool]], target: Path
) -> None:
    """Write a PNG; `timings` by millions of events, then by way; `labels` has the label of a way, and whether it deduplicates.

    The lines of those that do not are dashed.
    """
    ways = list(dict.fromkeys(name for of_size in timings.values() for name in of_size))
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for axis, figure_of, title in (
        (axes[0], lambda timing: timing.wall_seconds, "seconds"),
        (axes[1], lambda timing: timing.peak_mb / 1000, "peak memory, GB"),
    ):
        for number, way in enumerate(ways):
            points = [
                (float(size), figure_of(of_size[way])) for size, of_size in timings.items() if way in of_size
            ]
            ours = way == "meterlake"
            axis.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=4,
                linewidth=2.6 if ours else 1.3,
                linestyle="-" if labels[way][1] else "--",
                color=OURS if ours else OTHERS[number % len(OTHERS)],
                label=labels[way][0],
                zorder=3 if ours else 2,
            )
        axis.set(xscale="log", yscale="log", xlabel="million events", title=title)
        axis.set_xticks([float(size) for size in timings], labels=list(timings))
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.minorticks_off()
        axis.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(target, dpi=110)
    plt.close(figure)
