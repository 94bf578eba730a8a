rule quantize:
    input:
        corpus="results/corpus/manifest.json",
        checkpoint="results/models/{model}/seed{seed}/manifest.json",
        code=library(
            "quantizers/base.py",
            "quantizers/bitsandbytes.py",
            "quantizers/compressed.py",
            "quantizers/hqq.py",
            "quantizers/levels.py",
            "quantizers/packing.py",
            "quantizers/proof.py",
            "quantizers/torchao.py",
        ),
    output:
        "results/quantized/{model}/seed{seed}/{precision}/manifest.json",
    log:
        "results/logs/quantized/{model}/seed{seed}/{precision}.log",
    benchmark:
        "results/benchmarks/quantized/{model}/seed{seed}/{precision}.tsv"
    wildcard_constraints:
        precision="|".join(QUANTIZERS),
    threads: 1
    resources:
        gpu=1,
        mem_mb=3000,
    params:
        quantizer=lookup(dpath="quantizers/{precision}", within=config),
    message:
        "Quantizing {wildcards.model} (seed {wildcards.seed}) to {wildcards.precision}"
    script:
        "../scripts/quantize.py"
