"""Bad params.yaml files, each with the one message that it must give; and every params.yaml of the project."""

import copy
import datetime
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from palimpsest.errors import PalimpsestError
from palimpsest.study.params import check_params, expanded, leaves, read_params
from palimpsest.study.run_checks import check_paths, one_of

REPOSITORY = Path(__file__).parents[3]
SCHEMA = REPOSITORY / "workflow/schemas/params.schema.yaml"
STUDIES = [
    REPOSITORY / "params.yaml",
    REPOSITORY / "tests/tiny/params.yaml",
    *sorted(REPOSITORY.glob("studies/*/params.yaml")),
]
REMOVED = object()
DEFAULT = read_params(REPOSITORY / "params.yaml")
GA, TRAINING = DEFAULT["methods"]["ga"], DEFAULT["training"]
RMU = GA | {"forget_loss": "rmu", "steering": 5.0}

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
    Draft202012Validator.check_schema(yaml.safe_load(SCHEMA.read_text()))


def test_every_whole_number_has_a_bound():
    def unbounded(rule, where):
        if isinstance(rule, dict):
            if "integer" in str(rule.get("type")) and not {"minimum", "maximum"} <= set(rule):
                yield where
            for key, inner in rule.items():
                yield from unbounded(inner, f"{where}.{key}")

    assert not list(unbounded(yaml.safe_load(SCHEMA.read_text()), "schema"))


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
        ("inference.batch_size", 8.0, "inference.batch_size is 8.0: 8.0 is not of type 'integer'"),
        (
            "methods.ga.gradient_accumulation",
            2.0,
            "methods.ga.gradient_accumulation is 2.0: 2.0 is not of type 'integer'",
        ),
        ("seeds", [0.0], "seeds.0 is 0.0: 0.0 is not of type 'integer'"),
        (
            "methods.ga.epochs",
            REMOVED,
            "methods.ga lacks the key 'epochs': add it (only adapter, forget_until, gradient_accumulation, "
            "gradient_checkpointing, max_gradient_norm, memorized_until, negate, optimizer, saliency, sharpness, "
            "weight_decay may be left out).",
        ),
        (
            "methods.ga.forget_until",
            4.5,
            "methods.ga: forget_until and memorized_until both say where unlearning ends; delete one of them.",
        ),
        ("audit.seed", REMOVED, "audit lacks the key 'seed': add it (no key has a default)."),
        ("report", REMOVED, "the file lacks the key 'report': add it (only attacks, battery, deployed, verdict may "),
        ("methods.ga.forget_loss", "gaa", "methods.ga.forget_loss: unknown forget loss 'gaa'. Did you mean 'ga'?"),
        (
            "methods.ga.beta",
            0.1,
            "methods.ga: beta belongs to npo and simnpo and idk-dpo and altpo and undial and wga alone.",
        ),
        ("methods.npo.beta", REMOVED, "methods.npo lacks the key 'beta'"),
        ("methods.target", {}, "methods.target"),
        ("quantizers.bnb-fp4.backend", "bnb4", "quantizers.bnb-fp4: unknown "),
        ("quantizers.bnb-fp4.levels", "fp5", "quantizers.bnb-fp4: unknown levels"),
        ("quantizers.rtn-int4.bits", 5, "quantizers.rtn-int4: bits is 5: give 4 or 8."),
        (
            "quantizers.bf16",
            {"backend": "rtn"},
            "quantizers.bf16.backend is 'rtn': 'none' was expected.",
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
            "methods.npo_gdr_float32.optimizer",
            "adamw-float32-moments",
            "methods.npo_gdr_float32: the optimizer adamw-float32-moments is for weights in bfloat16",
        ),
        (
            "methods.ga",
            {**GA, "optimizer": "adamw-8bit", "storage": "bfloat16-stochastic"},
            "methods.ga: the optimizer adamw-8bit cannot round stochastically: take adamw, ",
        ),
        (
            "training",
            {**TRAINING, "optimizer": "adamw-8bit", "storage": "bfloat16-stochastic"},
            "training: the optimizer adamw-8bit cannot round stochastically",
        ),
        (
            "methods.ga",
            {**GA, "sharpness": 0.1, "gradient_checkpointing": True},
            "methods.ga: sharpness and gradient_checkpointing exclude each other",
        ),
        ("methods.ga.retain_loss", "kl", "methods.ga.retain_loss: unknown retain loss 'kl'. Did you mean 'klr'?"),
        ("methods.ga_gdr", {**GA, "retain_loss": "rmu", "layer": 1}, "methods.ga_gdr.forget_loss is 'ga': 'rmu' was"),
        ("methods.npo.beta", True, "methods.npo.beta is True: "),
        (
            "methods.ga",
            {**RMU, "layer": 7},
            "methods.ga.layer is 7, but models.scratch.layers is 3: layers count from 0.",
        ),
        ("methods.ga", {**RMU, "layer": -1}, "methods.ga.layer is -1: "),
        ("methods.ga.learning_rate", float("inf"), "methods.ga.learning_rate is inf: give a finite number."),
        ("training.learning_rate", float("nan"), "training.learning_rate is nan: give a finite number."),
        ("seeds", [0, float("inf")], "seeds.1 is inf: "),
        ("methods.ga gdr", {}, "methods is 'ga gdr': 'ga gdr' does not match "),
        ("quantizers.a/b", {}, "quantizers is 'a/b': 'a/b' does not match "),
        (
            "models.scratch.heads",
            7,
            "models.scratch.heads is 7: it must split hidden_size 512 into heads of an even width.",
        ),
        (
            "training.max_length",
            513,
            "training.max_length is 513, more than the 512 positions of models.scratch.context",
        ),
        (
            "inference.in_context_examples",
            5,
            "inference.in_context_examples is 5, but corpus.settings.icl_examples is 2: "
            "the corpus has no more to show.",
        ),
        (
            "corpus.settings.icl_examples",
            100,
            "corpus.settings: icl_examples is 100, but the forget split has only 16 questions left over",
        ),
        (
            "corpus.settings.questions_per_document",
            9,
            "corpus.settings: questions_per_document is 9: the grammar offers 1 to 6 per article.",
        ),
        ("metrics.exact", {}, "metrics: unknown metric 'exact'. "),
        ("metrics.verbmem.seeds", 1, "unknown key 'seeds' in metrics.verbmem. Did you mean 'seed'?"),
        ("methods.ga.gradient_accumulation", 0, "methods.ga.gradient_accumulation is 0: "),
        ("seeds", [], "seeds is []: "),
        ("seeds", [0, 0], "seeds is [0, 0]: "),
        (
            "corpus",
            DEFAULT["corpus"] | {"source": "hub", "settings": {"path": "", "retain_split": "retain"}},
            "corpus.settings.path is '': ",
        ),
        ("corpus.settings.forget_documents", 0, "corpus.settings.forget_documents is 0: "),
        ("seeds", [0, 2**32], "seeds.1 is 4294967296: 4294967296 is greater than the maximum of 4294967295."),
        ("audit.seed", 2**63, "audit.seed is a whole number of 64 bits: give one below 2^63."),
        ("methods.ga.learning_rate", 10**400, "methods.ga.learning_rate is a whole number of 1329 bits: "),
        pytest.param(
            "methods.ga.learning_rate",
            10**6000,
            "methods.ga.learning_rate is a whole number of 19932 bits: ",
            id="more digits than Python prints",
        ),
        ("methods.ga.learning_rate", 1e200, "methods.ga.learning_rate is 1e+200: give a number between 1e-37 and"),
        ("methods.ga.learning_rate", 1e-300, "methods.ga.learning_rate is 1e-300: give a number between 1e-37 and"),
        ("models.scratch.hidden_size", 2**40, "models.scratch.hidden_size is 1099511627776: "),
        ("models.scratch.layers", 10**9, "models.scratch.layers is 1000000000: "),
        ("models.scratch.vocabulary", 10**12, "models.scratch.vocabulary is 1000000000000: "),
        (
            "models.scratch",
            DEFAULT["models"]["scratch"] | {"hidden_size": 65536, "layers": 1000},
            "models.scratch has 17,381,300,633,600 parameters, more than the 100,000,000,000 that a process can train",
        ),
        ("corpus.settings.retain_documents", 10**9, "corpus.settings.retain_documents is 1000000000: "),
        ("audit.resamples", 10**9, "audit.resamples is 1000000000: "),
        ("methods.ga\n", GA, "methods has the key 'ga\\n': give it at most 200 letters, none of which is a"),
        ("methods.ga\x00", GA, "methods has the key 'ga\\x00': give it at most 200 letters, none of which is a"),
        ("quantizers.rtn\n", {"backend": "rtn"}, "quantizers has the key 'rtn\\n': give it at most 200 letters"),
        ("methods." + "a" * 101, GA, f"methods has '{'a' * 101}', which is longer than 100 letters. A name becomes a"),
        ("models.base", "a" * 5000, f"models.base has '{'a' * 199}..., which is longer than 4095 letters."),
        ("models.base", "a\ud800", "models.base has the character U+D800, which is no text: delete it."),
        ("models.base", datetime.date(2001, 1, 1), "models.base is 2001-01-01, which YAML reads as date: put text"),
        (
            "methods.ga",
            {**GA, "saliency": {"granularity": "row", "percentile": [50.0, 90.00001, 90.00002]}},
            "methods.ga.saliency.percentile has 90.00001 and 90.00002, both of which make the method ga_90: take one",
        ),
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


@pytest.mark.parametrize("key", [8, False, None])
def test_a_name_that_yaml_does_not_read_as_text(params, key):
    params["methods"][key] = params["methods"]["ga"]
    with pytest.raises(PalimpsestError, match=f"^params.yaml: methods has the key {key}, .*, or put it in quotes"):
        check_params(params, SCHEMA, "params.yaml")


def test_a_pattern_of_names_takes_whole_names_and_dots_for_dots():
    pattern = re.compile(one_of(["a.b", "c", 0]))
    assert all(pattern.fullmatch(name) for name in ("a.b", "c", "0"))
    assert not any(pattern.fullmatch(name) for name in ("aXb", "c\n", "00"))


def test_paths_that_the_system_refuses_are_told_before_the_steps(tmp_path):
    check_paths(tmp_path, ["a" * 100, "b" * 100])
    deep = tmp_path.joinpath(*["d" * 200] * 18)
    with pytest.raises(PalimpsestError, match=r"makes paths of up to .* letters .*: move the study to a folder"):
        check_paths(deep, ["a" * 100, "b" * 100, "c"])


def test_names_with_a_dot_and_digits_are_names(params):
    params["methods"] |= {"bf16-8.0e-6": GA, "8": GA, "4bit_x": GA}
    check_params(params, SCHEMA, "params.yaml")


def test_a_base_to_be_pretrained_says_how(params):
    params["models"]["base"] = "pretrained"
    with pytest.raises(PalimpsestError, match=r"^params.yaml: models.base is 'pretrained', and models lacks the key"):
        check_params(params, SCHEMA, "params.yaml")
    how = read_params(REPOSITORY / "studies/pretrained/params.yaml")["models"]["pretraining"]
    params["models"]["pretraining"] = how
    check_params(params, SCHEMA, "params.yaml")
    for block, message in (
        ({"warmup_steps": 1009}, "models.pretraining.warmup_steps is 1009, and there are 1009 steps in all"),
        ({"held_out": 1.0}, "models.pretraining.held_out is 1.0"),
        ({"text": how["text"] | {"files": []}}, "models.pretraining.text.files is "),
        ({"rate": 1.0}, "unknown key 'rate' in models.pretraining"),
    ):
        with pytest.raises(PalimpsestError, match=f"^params.yaml: {message}"):
            check_params(params | {"models": params["models"] | {"pretraining": how | block}}, SCHEMA, "params.yaml")
    with pytest.raises(PalimpsestError, match=r"models.scratch.heads is 7"):
        shape = params["models"]["scratch"] | {"heads": 7}
        check_params(params | {"models": params["models"] | {"scratch": shape}}, SCHEMA, "params.yaml")


def test_checks_of_scratch_do_not_concern_checkpoints(params):
    params["models"]["scratch"] |= {"heads": 7, "context": 2}
    params["methods"]["ga"] = RMU | {"layer": 7}
    for change in ({"base": "some/model"}, {"target": "a/b", "retrain": "c/d"}):
        check_params(params | {"models": params["models"] | change}, SCHEMA, "params.yaml")


@pytest.mark.parametrize("block", ["methods.ga", "training"])
def test_optimizers_are_allowed_where_the_storage_has_them(params, block):
    from palimpsest.training.storage import WEIGHT_STORAGE

    optimizers = {name for storage in WEIGHT_STORAGE.values() for name in storage.optimizers}
    settings = params["training"] if block == "training" else params["methods"]["ga"]
    for weights, storage in WEIGHT_STORAGE.items():
        for optimizer in optimizers:
            settings |= {"storage": weights, "optimizer": optimizer}
            if optimizer in storage.optimizers:
                check_params(params, SCHEMA, "params.yaml")
            else:
                with pytest.raises(PalimpsestError, match=f"^params.yaml: {block}: the optimizer {optimizer}"):
                    check_params(params, SCHEMA, "params.yaml")


@pytest.mark.parametrize(
    ("settings", "questions", "message"),
    [
        ({"forget_loss": "idk-dpo"}, True, "methods.ga lacks the key 'beta'"),
        ({"forget_loss": "satimp", "beta1": 1.0}, True, "methods.ga lacks the key 'beta2'"),
        ({"forget_loss": "ce-u", "beta": 1.0}, True, "methods.ga: beta belongs to .* alone"),
        (
            {"forget_loss": "altpo", "beta": 0.1},
            False,
            "training.questions is false: set it to true, or the loss to npo",
        ),
        (
            {"forget_loss": "pdu", "retain_limit": 1.0, "dual_step": 1.0},
            True,
            "retain_loss is null: set it to gdr or klr",
        ),
    ],
)
def test_what_the_losses_of_other_benchmarks_need_is_asked_at_planning(params, settings, questions, message):
    params["methods"]["ga"] |= settings
    params["training"]["questions"] = questions
    with pytest.raises(PalimpsestError, match=message):
        check_params(params, SCHEMA, "params.yaml")


def test_what_planning_accepts_unlearning_accepts():
    from palimpsest.unlearning.unlearn import settings_of

    for file in STUDIES:
        for method in expanded(read_params(file))["methods"].values():
            if "checkpoint" not in method:
                settings_of(method, 0)


def test_a_new_loss_and_a_new_metric_need_no_edit_of_the_schema(params, monkeypatch):
    from palimpsest import metrics
    from palimpsest.unlearning import losses

    def first_words(files, *, words: int):
        raise NotImplementedError

    monkeypatch.setitem(losses.FORGET_LOSSES, "tilted", losses.Loss(losses.gradient_ascent, settings=("tilt",)))
    monkeypatch.setattr("palimpsest.study.checks.SETTINGS", [*losses.SETTINGS, "tilt"])
    monkeypatch.setitem(metrics.METRICS, "first_words", first_words)
    params["methods"]["new"] = GA | {"forget_loss": "tilted", "tilt": 2.0}
    params["metrics"]["first_words"] = {"words": 3}
    check_params(params, SCHEMA, "params.yaml")
    for key, value, message in (
        ("methods", {"new": GA | {"forget_loss": "tilted"}}, "methods.new lacks the key 'tilt'"),
        ("methods", {"new": GA | {"forget_loss": "tilted", "tilt": "a"}}, "methods.new.tilt is 'a': give a number"),
        ("methods", {"new": GA | {"tilt": 2.0}}, "methods.new: tilt belongs to tilted alone"),
        ("metrics", {"first_words": {}}, "metrics.first_words lacks the setting 'words'"),
        ("metrics", {"first_words": {"word": 3}}, "unknown setting of metric first_words 'word'"),
    ):
        with pytest.raises(PalimpsestError, match=f"^params.yaml: {message}"):
            check_params(params | {key: params[key] | value}, SCHEMA, "params.yaml")


def test_the_method_and_the_keys_of_the_documentation(params):
    from palimpsest.training.schedule import Schedule

    page = (REPOSITORY / "docs/how-to/adding-a-method.md").read_text()
    params["methods"] |= yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])["methods"]
    check_params(params, SCHEMA, "params.yaml")
    assert "npo_gdr_stochastic" in params["methods"] and "make dvc-params" in page
    schema = yaml.safe_load(SCHEMA.read_text())["properties"]
    table = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \|", page.split("| key | without it |")[1], re.M))
    training = schema["training"]
    assert set(table) == {*training["properties"]} - {*training["required"], "pieces"}  # which is no Schedule's
    assert "`training.pieces`" in page and "`lines`" in page
    defaults = {key: Schedule.__dataclass_fields__[key].default for key in table}
    by_machine = {None: "by memory on a GPU, else false"}
    assert {key: by_machine.get(default, str(default).lower()) for key, default in defaults.items()} == {
        key: text.strip() for key, text in table.items()
    }
    method = schema["methods"]["additionalProperties"]
    for key in {*method["properties"]} - {*method["else"]["required"]}:
        assert f"`{key}`" in page, key


def test_the_quantizer_of_the_documentation(params, monkeypatch):
    from palimpsest.quantizers import QUANTIZERS

    page = (REPOSITORY / "docs/how-to/adding-a-quantizer.md").read_text()
    namespace = {"__name__": __name__}
    exec(page.split("```python\n")[1].split("```")[0], namespace)
    monkeypatch.setitem(QUANTIZERS, "my-format", namespace["MyFormat"])
    params["quantizers"] |= yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])["quantizers"]
    check_params(params, SCHEMA, "params.yaml")
    assert "my-format-int4" in params["quantizers"] and "make dvc-params" in page


def test_planning_imports_no_torch():
    code = (
        "import sys; from palimpsest.study.params import check_params, read_params; "
        f"check_params(read_params({str(STUDIES[0])!r}), "
    )
    code += f"{str(SCHEMA)!r}, 'params.yaml'); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_battery_is_optional(params):
    for battery in (None, BATTERY, BATTERY | {"models": ["target", "npo"], "precisions": ["bf16", "rtn-int4"]}):
        check_params(params | {"battery": battery}, SCHEMA, "params.yaml")
    del params["battery"]
    check_params(params, SCHEMA, "params.yaml")


def test_a_method_must_not_take_the_name_of_another_model(params):
    params["methods"]["retrain"] = params["methods"]["ga"]
    with pytest.raises(
        PalimpsestError, match=r"methods.retrain has the name of a model that is not unlearned: rename it"
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
        PalimpsestError, match=r"^params.yaml: methods.sure makes a method sure_50, of which there is one"
    ):
        check_params(params, SCHEMA, "params.yaml")
    for wrong in ([], [50.0, 50.0], [101.0], "50"):
        masked["saliency"]["percentile"] = wrong
        with pytest.raises(PalimpsestError, match=r"^params.yaml: methods.sure.saliency.percentile"):
            check_params(params, SCHEMA, "params.yaml")


def test_the_threshold_study_is_a_list():
    cures = expanded(read_params(REPOSITORY / "studies/cures/params.yaml"))["methods"]
    shares = {name: method["saliency"]["percentile"] for name, method in cures.items() if "sure_module_" in name}
    assert shares == {f"ga_gdr_sure_module_{share:g}": share for share in (0.0, 50.0, 90.0, 95.0, 99.0)}
    without = {key: value for key, value in cures["ga_gdr_sure_module_0"].items() if key != "saliency"}
    assert without == cures["ga_gdr_large"]


def test_every_key_of_the_default_study_is_explained_at_its_first_use():
    known: set[str] = set()
    bare = []
    for number, line in enumerate((REPOSITORY / "params.yaml").read_text().splitlines(), start=1):
        found = re.fullmatch(r" *([\w.-]+): *([^#]*?) *(# \S.*)?", line)
        if found and found[2]:
            if found[1] not in known and not found[3]:
                bare.append(f"params.yaml, line {number}: {found[1]}")
            known.add(found[1])
    assert {key.rpartition(".")[2] for key in leaves(DEFAULT)} == known
    assert bare == []


def test_leaves_are_the_values_that_are_no_mappings():
    assert leaves({"a": {"b": 1, "c": {"d": None}, "e": {}}, "f": [1, 2]}) == ["a.b", "a.c.d", "a.e", "f"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("", "holds no keys"),
        ("- 1", "holds no keys"),
        ("a: 1\nb: [1", "params.yaml, line 2 is not valid YAML: expected ',' or ']'"),
        ("a:\n\tb: 1", "line 2 is not valid YAML"),
    ],
)
def test_a_file_that_is_no_params_file(tmp_path, text, message):
    file = tmp_path / "params.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(PalimpsestError, match=message):
        read_params(file)


@pytest.mark.parametrize("name", ["a\n", "a\nb", "a b", "a/b", "../a", ".a", "-a", "a\x00", "ä", "", "a" * 101])
def test_the_schema_alone_refuses_what_is_no_name(params, name):
    names = yaml.safe_load(SCHEMA.read_text())["properties"]["methods"]["propertyNames"]
    assert not Draft202012Validator(names).is_valid(name)
    assert Draft202012Validator(names).is_valid("npo_gdr-2.5")
