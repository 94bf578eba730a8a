"""Draw the two charts of the audit."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    start_job(snakemake)

from palimpsest.artefacts import read_record
from palimpsest.report.figures import draw_retained, draw_survival

if __name__ == "__main__":
    table = read_record(snakemake.input.audit)
    draw_retained(table, snakemake.output.retained)
    draw_survival(table, snakemake.output.survival)
