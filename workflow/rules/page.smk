rule page:
    input:
        audit="results/audit.json",
        figures="results/figures.json",
        retained="results/figures/retained.svg",
        survival="results/figures/survival.svg",
        inferred=expand(
            "results/infer/{model}/seed{seed}/{precision}/manifest.json",
            model=MODELS,
            seed=SEEDS[0],
            precision=PRECISIONS,
        ),
        responses=expand(
            "results/infer/{model}/seed{seed}/{precision}/responses.jsonl",
            model=MODELS,
            seed=SEEDS[0],
            precision=PRECISIONS,
        ),
        manifests=QUANTIZED_MODELS,
        costs=COSTS,
        verdicts=VERDICTS,
        attacks=ATTACKS.table,
        models=TRAINED + UNLEARNED,
        code=code_of("page.py"),
    output:
        page=report(
            "results/report.html",
            caption="../report/page.rst",
            category="Audit",
            labels={"table": "the report for readers"},
        ),
        record="results/report.json",
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        settings=of_params(show="report"),
        models=MODELS,
        precisions=PRECISIONS,
        tokenizers=TOKENIZERS,
    message:
        "Writing results/report.html"
    script:
        "../scripts/page.py"
