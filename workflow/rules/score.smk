rule score:
    input:
        responses=expand(
            "results/infer/{{model}}/seed{{seed}}/{precision}/responses.jsonl",
            precision=PRECISIONS,
        ),
        logprobs=expand(
            "results/infer/{{model}}/seed{{seed}}/{precision}/logprobs.parquet",
            precision=PRECISIONS,
        ),
        retrain=expand(
            "results/infer/retrain/seed{{seed}}/{precision}/logprobs.parquet",
            precision=PRECISIONS,
        ),
        code=library(
            "metrics/rouge.py",
            "metrics/perplexity.py",
            "metrics/privleak.py",
            "metrics/inference_files.py",
            "statistics.py",
        ),
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
        precisions=PRECISIONS,
        settings=lookup(dpath="{metric}", within=config["metrics"]),
    message:
        "Scoring {wildcards.metric} of {wildcards.model} (seed {wildcards.seed}) at every precision"
    script:
        "../scripts/score.py"
