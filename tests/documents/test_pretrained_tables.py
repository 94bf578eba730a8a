"""Tables of the pretrained page: every cell is that of its model and format, in the order of the heads."""

import pytest

import evidence

STUDY = "pretrained-seeds"
FORMATS = ["bf16", "bnb-fp4", "bnb-nf4", "rtn-int4", "rtn-int4-g128"]


def cells(table: str) -> dict[str, list[str]]:
    head, rule, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    assert head[1:] == ["bf16", "FP4", "NF4", "int4", "int4, groups of 128"] and len(rule) == len(head)
    return {name: values for name, *values in rows}


@pytest.mark.parametrize("column", ["knowmem", "retained_same_precision_verbmem"])
def test_scores_by_format(column):
    found = cells(evidence.scores_by_format(STUDY, column))
    assert ("target" in found) == ("retrained" in found) == (column == "knowmem")
    for name, model in {"NPO_GDR, bfloat16": "npo_gdr", "NPO_GDR, float32": "npo_gdr_float32"}.items():
        assert found[name] == [evidence.spread(STUDY, column, model, at) for at in FORMATS]
    less = cells(evidence.scores_by_format(STUDY, column, "npo_gdr", "target"))
    assert set(found) - set(less) == {"NPO_GDR, bfloat16", *({"target"} & set(found))}


def test_shares_by_format_and_denominator():
    both = "npo_gdr, ga_gdr"
    found = cells(evidence.shares_by_format(STUDY, {"mean of two": both}))
    assert list(found)[-1] == "mean of two" and not {"target", "retrained"} & set(found)
    for name, models in {"GA_GDR, bfloat16": "ga_gdr", "mean of two": both}.items():
        assert found[name] == [evidence.kept_share(STUDY, models, "same_precision", at) for at in FORMATS]
    paper = cells(evidence.shares_by_denominator(STUDY, both))
    assert len(paper) == 4 and paper["above the retrained model, target in the same format"] == found["mean of two"]
    assert paper["score / target in bf16, as the paper prints it"] == [
        evidence.kept_share(STUDY, both, "ratio_bf16", at) for at in FORMATS
    ]
    with pytest.raises(LookupError, match="no same_precision of npo_klr"):
        evidence.shares_by_format(STUDY, {"another": "npo_klr"})
