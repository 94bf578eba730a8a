rule audit:
    input:
        scores=SCORES,
        survival=SURVIVAL,
        models=TRAINED + UNLEARNED,
        battery=BATTERY_RECORDS,
        deployed=DEPLOYED,
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
        # what the page shows decides nothing here
        settings=of_params(**{key: key for key in config if key not in BESIDE}),
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
