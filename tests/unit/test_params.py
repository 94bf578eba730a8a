"""Bad params.yaml files, each with the one message that it must give; and every params.yaml of the project."""

import copy
from pathlib import Path

import pytest
import yaml

from palimpsest.errors import PalimpsestError
from palimpsest.params import check_params, expanded, leaves, read_params

REPOSITORY = Path(__file__).parents[2]
SCHEMA = REPOSITORY / "workflow/schemas/params.schema.yaml"
STUDIES = [
    REPOSITORY / "params.yaml",
    REPOSITORY / "tests/tiny/params.yaml",
    *sorted(REPOSITORY.glob("studies/*/params.yaml")),
]
REMOVED = object()

BATTERY = {
    "models": None,
    "precisions": None,
    "seed": 0,
    "batch_size": 1,
    "tasks": {"tru": {"data": "a", "limit": None}},
}


@pytest.fixture
def params() -> dict:
    return copy.deepcopy(read_params(REPOSITORY / "params.yaml"))


def test_schema_is_valid():
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(yaml.safe_load(SCHEMA.read_text()))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_every_study_fits_the_schema(file):
    check_params(read_params(file), SCHEMA, str(file))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("methods.ga.learning_rat", 1.0, "unknown key 'learning_rat' in methods.ga. Did you mean 'learning_rate'?"),
        ("metric", {}, "unknown key 'metric'. Did you mean 'metrics'?"),
        ("inference.temperature", 0.0, "unknown key 'temperature' in inference. Known: "),
        (
            "methods.ga.learning_rate",
            "1e-5",
            "methods.ga.learning_rate is the text '1e-5', not a number: YAML wants a point",
        ),
        ("methods.ga.learning_rate", 0, "methods.ga.learning_rate is 0: "),
        ("methods.ga.epochs", REMOVED, "methods.ga lacks the key 'epochs': add it (no key has a default)."),
        ("report", REMOVED, "the file lacks the key 'report': add it"),
        ("methods.ga.forget_loss", "gaa", "methods.ga.forget_loss is 'gaa': "),
        ("methods.ga.beta", 0.1, "methods.ga: beta belongs to npo and simnpo alone."),
        ("methods.npo.beta", REMOVED, "methods.npo lacks the key 'beta'"),
        ("methods.target", {}, "methods.target"),
        ("quantizers.bnb-fp4.backend", "bnb4", "quantizers.bnb-fp4: unknown "),
        ("quantizers.bnb-fp4.levels", "fp5", "quantizers.bnb-fp4: unknown levels"),
        ("quantizers.rtn-int4.bits", 5, "quantizers.rtn-int4: bits is 5: give 4 or 8."),
        (
            "quantizers.bf16",
            {"backend": "none"},
            "quantizers: bf16 is the name of the unquantized models: rename this quantizer.",
        ),
        ("report.method", "rmu", "report.method is 'rmu', which is none of ga, "),
        ("report.precision", "bf16", "report.precision is 'bf16', which is none of "),
        (
            "report.known_answers",
            "muse-new",
            "report.known_answers: unknown pack of known answers 'muse-new'. Did you mean 'muse-news'?",
        ),
        ("models.target", {"checkpoint": "a/b"}, "models.target lacks the key 'tokenizer'"),
        (
            "models.retrain",
            {"checkpoint": "a", "tokeniser": "b"},
            "unknown key 'tokeniser' in models.retrain. Did you mean 'tokenizer'?",
        ),
        ("battery", {"tasks": {}}, "battery lacks the key 'models': add it"),
        (
            "battery",
            BATTERY | {"models": ["ga", "gaa"]},
            "battery.models has 'gaa', which is none of target, retrain, ga, ",
        ),
        ("battery", BATTERY | {"precisions": ["fp4"]}, "battery.precisions has 'fp4', which is none of bf16, "),
        ("battery", BATTERY | {"precisions": []}, "battery.precisions is []: "),
        ("battery", BATTERY | {"tasks": {"gem": {}}}, "unknown key 'gem' in battery.tasks. Did you mean 'gen'?"),
        ("battery", BATTERY | {"tasks": {"gen": {"data": "a"}}}, "battery.tasks.gen lacks the key 'limit'"),
        ("battery", BATTERY | {"tasks": {"tru": {"data": "a", "limit": 1}}}, "battery.tasks.tru.limit is 1: "),
        (
            "battery",
            BATTERY | {"tasks": {"tru": {"data": "a", "limit": 2, "shots": 6}}},
            "unknown key 'shots' in battery.tasks.tru. ",
        ),
        (
            "methods.ga_gdr_float32.optimizer",
            "adamw-float32-moments",
            "methods.ga_gdr_float32: the optimizer adamw-float32-moments is for weights in bfloat16",
        ),
        ("methods.ga.gradient_accumulation", 0, "methods.ga.gradient_accumulation is 0: "),
        ("seeds", [], "seeds is []: "),
        ("seeds", [0, 0], "seeds is [0, 0]: "),
        ("corpus.settings.forget_documents", 0, "corpus.settings.forget_documents is 0: "),
    ],
)
def test_a_mistake_gets_one_message_that_names_the_key(params, key, value, message):
    *path, last = key.split(".")
    block = params
    for name in path:
        block = block[name]
    if value is REMOVED:
        del block[last]
    else:
        block[last] = value
    with pytest.raises(PalimpsestError) as caught:
        check_params(params, SCHEMA, "params.yaml")
    assert str(caught.value).startswith(f"params.yaml: {message}"), caught.value
    assert "\n" not in str(caught.value)


def test_a_battery_is_optional(params):
    for battery in (None, BATTERY, BATTERY | {"models": ["target", "npo"], "precisions": ["bf16", "rtn-int4"]}):
        check_params(params | {"battery": battery}, SCHEMA, "params.yaml")
    del params["battery"]
    check_params(params, SCHEMA, "params.yaml")


def test_a_method_must_not_take_the_name_of_another_model(params):
    params["methods"]["retrain"] = params["methods"]["ga"]
    with pytest.raises(
        PalimpsestError, match="methods.retrain has the name of a model that is not unlearned: rename it"
    ):
        check_params(params, SCHEMA, "params.yaml")


def test_a_list_of_percentiles_is_a_method_for_each(params):
    start = params["methods"]["ga"]
    masked = start | {"saliency": {"granularity": "row", "percentile": [0.0, 50.0, 99.5]}}
    params["methods"] = {"ga": start, "sure": masked, "npo": params["methods"]["npo"]}
    check_params(params | {"report": params["report"] | {"method": "sure_99.5"}}, SCHEMA, "params.yaml")
    found = expanded(params)["methods"]
    assert list(found) == ["ga", "sure_0", "sure_50", "sure_99.5", "npo"]
    assert found["sure_50"] == start | {"saliency": {"granularity": "row", "percentile": 50.0}}
    assert found["ga"] == start and expanded(expanded(params)) == expanded(params)
    params["methods"]["sure_50"] = start
    with pytest.raises(
        PalimpsestError, match="^params.yaml: methods.sure makes a method sure_50, of which there is one"
    ):
        check_params(params, SCHEMA, "params.yaml")
    for wrong in ([], [50.0, 50.0], [101.0], "50"):
        masked["saliency"]["percentile"] = wrong
        with pytest.raises(PalimpsestError, match="^params.yaml: methods.sure.saliency.percentile"):
            check_params(params, SCHEMA, "params.yaml")


def test_the_threshold_study_is_a_list():
    cures = expanded(read_params(REPOSITORY / "studies/cures/params.yaml"))["methods"]
    shares = {name: method["saliency"]["percentile"] for name, method in cures.items() if "sure_module_" in name}
    assert shares == {f"ga_gdr_sure_module_{share:g}": share for share in (0.0, 50.0, 90.0, 95.0, 99.0)}
    without = {key: value for key, value in cures["ga_gdr_sure_module_0"].items() if key != "saliency"}
    assert without == cures["ga_gdr_large"]


def test_leaves_are_the_values_that_are_no_mappings():
    assert leaves({"a": {"b": 1, "c": {"d": None}, "e": {}}, "f": [1, 2]}) == ["a.b", "a.c.d", "a.e", "f"]


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "does not exist"), ("", "holds no keys"), ("- 1", "holds no keys"), ("a: [1", "is not valid YAML")],
)
def test_a_file_that_is_no_params_file(tmp_path, text, message):
    file = tmp_path / "params.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(PalimpsestError, match=message):
        read_params(file)
