"""Judge one unlearned model in every format, by the policy that the run began with: JSON, records and a page."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from pathlib import Path

from palimpsest.artefacts import Origin, atomic_directory, check_files, verify_files, write_manifest
from palimpsest.verdict.fixed import SOURCE, check_fixed, fixed_policy
from palimpsest.verdict.study import deployed_files, read_study
from palimpsest.verdict.write import judged, write_verdict


def judge_model(
    origin: Origin, model: str, policy: Path, inputs: dict[str, str], inferred: list[Path], folder: Path
) -> None:
    """policy: the file, which must still say what it said; inputs: its record and the audit; inferred: what the model
    answered."""
    if policy.is_file():
        check_fixed(policy, Path(inputs["policy"]))
    rules, notes = fixed_policy(Path(inputs["policy"]))
    audit = Path(inputs["audit"])
    check_files(audit)
    for answers in inferred:
        verify_files(answers)
    measured = read_study(audit.parent, model, rules.wanted(SOURCE))
    made = judged(measured, rules, {"audit": audit}, deployed_files(audit.parent, model), notes, model)
    with atomic_directory(folder) as draft:
        write_verdict(draft, made)
        write_manifest(draft, origin, packages=("numpy", "scipy", "jinja2"))


if __name__ == "__main__":
    judge_model(
        job.origin,
        snakemake.wildcards.model,
        Path(job.settings["policy"]),
        {name: snakemake.input[name] for name in ("policy", "audit")},
        [Path(manifest).parent for manifest in snakemake.input.inferred],
        Path(snakemake.output[0]).parent,
    )
