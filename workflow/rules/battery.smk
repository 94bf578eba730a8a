BATTERY = config.get("battery") or {}
BATTERY_RECORDS = (
    expand(
        "results/battery/{model}/seed{seed}/{precision}.json",
        model=BATTERY["models"] or MODELS,
        seed=SEEDS,
        precision=BATTERY["precisions"] or PRECISIONS,
    )
    if BATTERY
    else []
)


rule battery_questions:
    input:
        code=code_of("battery_questions.py"),
    output:
        "results/battery/questions.json",
    log:
        "results/logs/battery/questions.log",
    benchmark:
        "results/benchmarks/battery/questions.tsv"
    priority: 20  # a missing dataset shows before anything is trained
    threads: 1
    resources:
        mem_mb=2000,
    params:
        settings=(
            of_params(tasks="battery/tasks", seed="battery/seed") if BATTERY else {}
        ),
    message:
        "Drawing the questions of the utility battery"
    script:
        "../scripts/battery_questions.py"


rule battery:
    input:
        questions="results/battery/questions.json",
        model=deployed,
        code=code_and_backend_of("battery.py"),
    output:
        "results/battery/{model}/seed{seed}/{precision}.json",
    log:
        "results/logs/battery/{model}/seed{seed}/{precision}.log",
    benchmark:
        "results/benchmarks/battery/{model}/seed{seed}/{precision}.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=3000,
    params:
        settings=(
            of_params(
                quantizer="quantizers/{precision}",
                compute="inference/compute",
                tasks="battery/tasks",
                batch_size="battery/batch_size",
                kernels="kernels",
            )
            if BATTERY
            else {}
        ),
    message:
        "Utility battery: {wildcards.model} (seed {wildcards.seed}) at {wildcards.precision}"
    script:
        "../scripts/battery.py"
