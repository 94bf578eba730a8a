"""Score one metric of one model at every precision, from what inference wrote."""

from typing import Any

from palimpsest.artefacts import write_json
from palimpsest.logs import start_logging
from palimpsest.metrics import score


def score_precisions(
    key: dict[str, Any],
    metric: str,
    settings: dict[str, Any],
    precisions: list[str],
    files: list[tuple[str, str, str]],
    outputs: list[str],
) -> None:
    """files: responses, log-probabilities and the retrained model's log-probabilities of each precision."""
    for precision, paths, output in zip(precisions, files, outputs, strict=True):
        write_json(output, key | {"precision": precision} | score(metric, settings, *paths))


if __name__ == "__main__":
    start_logging(snakemake.log[0])
    score_precisions(
        {"model": snakemake.wildcards.model, "seed": int(snakemake.wildcards.seed)},
        snakemake.wildcards.metric,
        snakemake.params.settings,
        snakemake.params.precisions,
        list(zip(snakemake.input.responses, snakemake.input.logprobs, snakemake.input.retrain, strict=True)),
        list(snakemake.output),
    )
