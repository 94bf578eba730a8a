"""The figures of the documents, each in two files for light and dark pages: `make figures`.

The message of a figure stands as alt text wherever the figure does, so its numbers, too, come from docs/evidence.
"""

from collections.abc import Callable

from charts.cures import cures
from charts.dead_zone import dead_zone
from charts.default_study import default_rho, default_study
from charts.foreign_seeds import foreign_seeds
from charts.formats import formats, formats_recovered
from charts.learning_rates import learning_rates
from charts.literature import published
from charts.measured_pairs import outcomes, rho, smollm2
from charts.pretrained import answers
from charts.style import THEMES, Figure, drawn
from evidence import REPOSITORY

FOLDER = REPOSITORY / "docs/figures"
REPORT = "The first screen of the default study's report: its answer in a sentence, and the verdict on each file."
"""What the picture of report.html shows."""
FIGURES: dict[str, Callable[[], Figure]] = {
    "answers": answers,
    "outcomes": outcomes,
    "smollm2-formats": smollm2,
    "cures": cures,
    "rho": rho,
    "format-costs": formats,
    "default-study": default_study,
    "default-rho": default_rho,
    "learning-rates": learning_rates,
    "formats-recovered": formats_recovered,
    "dead-zone": dead_zone,
    "public-results": published,
    "foreign-seeds": foreign_seeds,
}


def message(name: str) -> str:
    return FIGURES[name]()[1]


def main() -> None:
    for name, figure in FIGURES.items():
        chart, said = figure()
        print(f"{name}: {said}")
        for theme in THEMES:
            (FOLDER / f"{name}{theme}.svg").write_text(drawn(chart, theme) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
