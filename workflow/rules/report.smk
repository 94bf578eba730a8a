rule audit:
    input:
        scores=SCORES,
        survival=SURVIVAL,
        models=TRAINED + UNLEARNED,
        battery=BATTERY_RECORDS,
        code=code_of("audit.py"),
    output:
        json="results/audit.json",
        csv=report(
            "results/audit.csv",
            caption="../report/audit.rst",
            category="Audit",
            labels={"table": "every model at every precision"},
        ),
    log:
        "results/logs/audit.log",
    benchmark:
        "results/benchmarks/audit.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        settings=of_params(**{key: key for key in config}),
    message:
        "Collecting the audit table"
    script:
        "../scripts/audit.py"


rule figures:
    input:
        audit="results/audit.json",
        code=code_of("figures.py"),
    output:
        retained=report(
            "results/figures/retained.svg",
            caption="../report/retained.rst",
            category="Figures",
            labels={"figure": "retained forget knowledge by precision"},
        ),
        survival=report(
            "results/figures/survival.svg",
            caption="../report/survival.rst",
            category="Figures",
            labels={"figure": "update survival against recovery"},
        ),
        record="results/figures.json",
    log:
        "results/logs/figures.log",
    benchmark:
        "results/benchmarks/figures.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    message:
        "Drawing the figures"
    script:
        "../scripts/figures.py"


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
