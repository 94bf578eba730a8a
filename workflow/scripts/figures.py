"""Draw the two charts of the audit, and note what was drawn."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from palimpsest.artefacts import Origin, files_of, read_record, write_record
from palimpsest.report.figures import draw_retained, draw_survival


def draw(origin: Origin, audit: str, retained: str, survival: str, record: str) -> None:
    table = read_record(audit)
    draw_retained(table, retained)
    draw_survival(table, survival)
    write_record(record, origin, {"files": files_of(record, [retained, survival])}, ("matplotlib",))


if __name__ == "__main__":
    drawn = snakemake.output
    draw(job.origin, snakemake.input.audit, drawn.retained, drawn.survival, drawn.record)
