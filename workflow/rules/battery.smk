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
        tasks=BATTERY.get("tasks"),
        seed=BATTERY.get("seed"),
    message:
        "Drawing the questions of the utility battery"
    script:
        "../scripts/battery_questions.py"


rule battery:
    input:
        questions="results/battery/questions.json",
        model="results/quantized/{model}/seed{seed}/{precision}/manifest.json",
        code=code_and_backend_of("battery.py"),
    output:
        "results/battery/{model}/seed{seed}/{precision}.json",
    log:
        "results/logs/battery/{model}/seed{seed}/{precision}.log",
    benchmark:
        "results/benchmarks/battery/{model}/seed{seed}/{precision}.tsv"
    wildcard_constraints:
        precision="|".join(QUANTIZERS),
    threads: 1
    resources:
        gpu=1,
        mem_mb=3000,
    params:
        quantizer=lookup(dpath="{precision}", within=config["quantizers"]),
        compute=config["inference"]["compute"],
        tasks=BATTERY.get("tasks"),
        batch_size=BATTERY.get("batch_size"),
    message:
        "Utility battery: {wildcards.model} (seed {wildcards.seed}) at {wildcards.precision}"
    script:
        "../scripts/battery.py"


use rule battery as battery_unquantized with:
    input:
        questions="results/battery/questions.json",
        model="results/models/{model}/seed{seed}/manifest.json",
        code=code_of("battery.py", "palimpsest.quantizers.unquantized"),
    wildcard_constraints:
        precision="bf16",
    params:
        quantizer={"backend": "none"},
        compute=config["inference"]["compute"],
        tasks=BATTERY.get("tasks"),
        batch_size=BATTERY.get("batch_size"),
