BASE = (
    ["results/base/model/manifest.json"]
    if config["models"]["base"] == PRETRAINED
    else []
)


rule pretraining_text:
    input:
        code=code_of("pretraining_text.py"),
    output:
        "results/base/text/manifest.json",
    log:
        "results/logs/base/text.log",
    benchmark:
        "results/benchmarks/base/text.tsv"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        settings=of_params(
            text="models/pretraining/text", vocabulary="models/scratch/vocabulary"
        ),
    message:
        "Tokenizing the text that the base is pretrained on"
    script:
        "../scripts/pretraining_text.py"


rule pretrain:
    input:
        text="results/base/text/manifest.json",
        code=code_of("pretrain.py"),
    output:
        "results/base/model/manifest.json",
    log:
        "results/logs/base/model.log",
    benchmark:
        "results/benchmarks/base/model.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        settings=of_params(
            scratch="models/scratch",
            pretraining="models/pretraining",
            kernels="kernels",
        ),
    message:
        "Pretraining the base"
    script:
        "../scripts/pretrain.py"
