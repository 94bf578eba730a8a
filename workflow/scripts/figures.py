"""Draw the two charts of the audit."""

from palimpsest.artefacts import read_json
from palimpsest.report.figures import draw_retained, draw_survival
from palimpsest.runtime.logs import start_logging

if __name__ == "__main__":
    start_logging(snakemake.log[0])
    table = read_json(snakemake.input.audit)
    draw_retained(table, snakemake.output.retained)
    draw_survival(table, snakemake.output.survival)
