rule corpus:
    input:
        code=code_of("corpus.py"),
    output:
        "results/corpus/manifest.json",
    log:
        "results/logs/corpus.log",
    benchmark:
        "results/benchmarks/corpus.tsv"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        settings=of_params(corpus="corpus"),
        tokenizers=run_checks.uncounted(TOKENIZERS),  # a check asks for no new corpus
    message:
        "Preparing the corpus: documents, questions, prompts and passages"
    script:
        "../scripts/corpus.py"
