rule corpus:
    input:
        code=library(
            "corpus/generator.py",
            "corpus/grammar.py",
            "corpus/topics_leisure.py",
            "corpus/topics_public.py",
            "corpus/topics_trade.py",
            "corpus/cutting.py",
            "corpus/subset.py",
            "corpus/sources.py",
            "corpus/checks.py",
        ),
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
        settings=config["corpus"],
    message:
        "Preparing the corpus: documents, questions, prompts and passages"
    script:
        "../scripts/corpus.py"
