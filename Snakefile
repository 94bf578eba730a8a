# Palimpsest: does a model that was made to forget still forget after quantization?
from palimpsest.errors import one_line
from palimpsest.study.params import read_params
from snakemake.utils import min_version

min_version("9.0")

with (
    one_line()
):  # Snakemake names neither file nor line, and of two equal keys takes the last
    for file in ["params.yaml", *workflow.configfiles]:
        read_params(file)


configfile: "params.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/policy.smk"
include: "workflow/rules/corpus.smk"
include: "workflow/rules/base.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/unlearn.smk"
include: "workflow/rules/bring.smk"
include: "workflow/rules/quantize.smk"
include: "workflow/rules/deployed.smk"
include: "workflow/rules/infer.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/survival.smk"
include: "workflow/rules/battery.smk"
include: "workflow/rules/attacks.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/verdict.smk"
include: "workflow/rules/page.smk"
include: "workflow/rules/stages.smk"
include: "workflow/rules/hooks.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        "results/report.html",
        "results/audit.json",
        "results/audit.csv",
