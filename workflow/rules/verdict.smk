VERDICTS = (
    expand(
        "results/verdict/{model}/manifest.json",
        model=VERDICT.get("models") or METHODS,
    )
    if VERDICT
    else []
)


rule judge:
    input:
        policy="results/policy/policy.json",
        corpus="results/corpus/manifest.json",
        audit="results/audit.json",
        scores=expand(
            "results/scores/{model}/seed{seed}/{precision}/{metric}.json",
            model=["{model}", TARGET, *CONTROLS],
            seed=SEEDS,
            precision=PRECISIONS,
            metric=METRICS,
        ),
        inferred=expand(
            "results/infer/{{model}}/seed{seed}/{precision}/manifest.json",
            seed=SEEDS[0],
            precision=PRECISIONS,
        ),
        responses=expand(
            "results/infer/{{model}}/seed{seed}/{precision}/responses.jsonl",
            seed=SEEDS[0],
            precision=PRECISIONS,
        ),
        files=expand(
            "results/quantized/{{model}}/seed{seed}/{precision}/manifest.json",
            seed=SEEDS,
            precision=QUANTIZED,
        ),
        code=code_of("judge.py"),
    output:
        "results/verdict/{model}/manifest.json",
    log:
        "results/logs/verdict/{model}.log",
    benchmark:
        "results/benchmarks/verdict/{model}.tsv"
    wildcard_constraints:
        model=one_of(METHODS),
    threads: 1
    resources:
        mem_mb=1000,
    params:
        settings=of_params(policy="verdict/policy") if VERDICT else {},
    message:
        "Judging {wildcards.model} in every format"
    script:
        "../scripts/judge.py"


# `snakemake verdict`: it puts out nothing, so that it is asked each time, and fails where a file may not ship.
rule verdict:
    input:
        verdicts=VERDICTS,
        code=code_of("gate.py"),
    log:
        "results/logs/verdict.log",
    threads: 1
    resources:
        mem_mb=500,
    message:
        "May the files of this study ship?"
    script:
        "../scripts/gate.py"


localrules:
    verdict,
