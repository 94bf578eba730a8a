SCORES = expand(
    "results/scores/{model}/seed{seed}/{precision}/{metric}.json",
    model=MODELS,
    seed=SEEDS,
    precision=PRECISIONS,
    metric=METRICS,
)


rule score:
    input:
        model=expand(
            "results/infer/{{model}}/seed{{seed}}/{precision}/manifest.json",
            precision=PRECISIONS,
        ),
        retrain=expand(
            "results/infer/{model}/seed{{seed}}/{precision}/manifest.json",
            model=CONTROLS,
            precision=PRECISIONS,
        ),
        files=expand(
            "results/infer/{model}/seed{{seed}}/{precision}/{file}",
            model=["{model}", *CONTROLS],
            precision=PRECISIONS,
            file=["responses.jsonl", "logprobs.parquet", "answers.parquet"],
        ),
        code=code_of("score.py"),
    output:
        expand(
            "results/scores/{{model}}/seed{{seed}}/{precision}/{{metric}}.json",
            precision=PRECISIONS,
        ),
    log:
        "results/logs/scores/{model}/seed{seed}/{metric}.log",
    benchmark:
        "results/benchmarks/scores/{model}/seed{seed}/{metric}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        settings=of_params(metric="metrics/{metric}"),
    message:
        "Scoring {wildcards.metric} of {wildcards.model} (seed {wildcards.seed}) at every precision"
    script:
        "../scripts/score.py"
