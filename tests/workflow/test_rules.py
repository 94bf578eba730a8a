"""How the workflow is written: formatting, lint, the contract of each rule, and what dvc.yaml says about the rules."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from palimpsest.quantizers import QUANTIZERS
from palimpsest.study.params import expanded, read_params
from palimpsest.study.stages import rules_of
from palimpsest.study.step_code import code_of

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.prefix) / "bin"
RULES = sorted((REPOSITORY / "workflow/rules").glob("*.smk"))
SCRIPTS = sorted((REPOSITORY / "workflow/scripts").glob("*.py"))
LIBRARY = sorted((REPOSITORY / "src/palimpsest").rglob("*.py"))
STUDIES = [
    REPOSITORY / "params.yaml",
    REPOSITORY / "tests/tiny/params.yaml",
    *sorted(REPOSITORY.glob("studies/*/params.yaml")),
]
PROFILES = [*(REPOSITORY / "profiles").glob("*/config.yaml"), *(REPOSITORY / "workflow/profiles").glob("*/config.yaml")]
BACKENDS = [quantizer.__module__ for quantizer in QUANTIZERS.values()]
TARGETS = {"all", "first", "models", "deploy"}  # rules that only name what is wanted
GATES = {"verdict"}  # that put out nothing, and so are asked each time
CONTRACT = ("input", "output", "log", "benchmark", "threads", "resources", "message", "script")


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def run(*command: str | Path, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def rules(text: str) -> dict[str, str]:
    """The body of every rule in the text of a rule file, without those that inherit another's."""
    parts = re.split(r"^(?=rule |use rule |checkpoint |localrules)", text, flags=re.MULTILINE)
    return {part[5 : part.index(":")]: part for part in parts if part.startswith("rule ")}


ALL_RULES = {name: body for file in RULES for name, body in rules(file.read_text()).items()}


@pytest.mark.parametrize("study", STUDIES, ids=relative)
def test_every_study_can_be_planned(study, tmp_path):
    params = expanded(read_params(study))
    text = re.sub(r"^seeds: .*$", f"seeds: {params['seeds'][:1]}", study.read_text(), flags=re.MULTILINE)
    if policy := (params.get("verdict") or {}).get("policy"):
        here = (study.parent / policy).resolve()
        text = text.replace(f"policy: {policy}", f"policy: {here}")
    (tmp_path / "params.yaml").write_text(text)  # one seed: others would be the same steps again
    done = run("snakemake", "--dry-run", "--directory", tmp_path)
    isolated = [block for block in params["quantizers"].values() if block["backend"] in ("auto-gptq", "autoawq")]
    if isolated and f"3.{sys.version_info.minor}" not in (REPOSITORY / "workflow/envs/archived.txt").read_text():
        assert done.returncode and "were tried on Python" in done.stdout
        return
    assert done.returncode == 0, done.stdout
    jobs = (len(params["methods"]) + 2) * (len(params["quantizers"]) - 1)
    assert re.search(rf"^quantize +{jobs}$", done.stdout, re.MULTILINE)
    assert "profiles/default" in done.stdout, "the default profile is not found"
    assert [path.name for path in tmp_path.iterdir() if path.name != ".snakemake"] == ["params.yaml"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "epochs: 120 # no",
            "epochz: 120 # no",
            "Error: params.yaml: unknown key 'epochz' in methods.npo_gdr_float32. Did you mean ",
        ),
        ("seeds: [0]", "seeds: [0", "Error: params.yaml, line "),
        (None, None, "Error: params.yaml does not exist: run this in the folder of the study."),
    ],
)
def test_a_mistake_in_params_is_one_line(old, new, message, tmp_path):
    if old:
        text = (REPOSITORY / "params.yaml").read_text()
        assert old in text
        (tmp_path / "params.yaml").write_text(text.replace(old, new))
    done = run("snakemake", "--dry-run", "--quiet", "all", "--directory", tmp_path)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Using workflow specific profile")]
    assert done.returncode == 1 and len(lines) == 1 and lines[0].startswith(message), done.stdout


def test_an_environment_whose_path_has_white_space_is_refused_while_planning(tmp_path):
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    (tmp_path / "my clone").mkdir()
    (tmp_path / "my clone/.venv").symlink_to(sys.prefix)
    python = tmp_path / "my clone/.venv/bin/python"
    done = run(
        python, "-m", "snakemake", "--snakefile", "Snakefile", "--dry-run", "--quiet", "all", "--directory", tmp_path
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Using workflow specific profile")]
    assert done.returncode == 1 and len(lines) == 1, done.stdout
    assert lines[0].startswith(f"Error: {str(python)!r} has white space in its path") and "move the clone" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (
            ("--resources", "gpu=1"),
            1,
            "Error: train is to have 2 GPUs (--set-resources train:gpu=2), and the whole run has 1 ",
        ),
        (
            ("--profile", "workflow/profiles/gpu"),
            1,
            "and the whole run has 1 (--resources gpu=1, on the command line or in a profile): "
            "say --resources gpu=2 or more.",
        ),
        (("--resources", "gpu=0"), 0, "--resources gpu=0: no step sees a GPU, all run on the CPU."),
        (("--resources", "gpu=2"), 0, None),
        ((), 0, None),
    ],
    ids=["fewer", "fewer in the profile", "none", "enough", "not said"],
)
def test_a_step_never_gets_fewer_gpus_than_it_is_set_to_without_a_word(arguments, status, said, tmp_path):
    """Snakemake lowers a step's `gpu` to that of the run."""
    shutil.copy(REPOSITORY / "tests/tiny/params.yaml", tmp_path)
    command = ["snakemake", "--dry-run", "--quiet", "all", "--directory", tmp_path, "--cores", "2"]
    done = run(*command, *arguments, "--set-resources", "train:gpu=2")
    assert done.returncode == status, done.stdout
    assert said in done.stdout if said else "GPU" not in done.stdout


def test_lint_finds_only_that_rules_share_one_environment(tmp_path):
    """Snakemake would have a conda environment in each rule;
    here pyproject.toml and constraints.txt are the environment of all."""
    for name in ("params.yaml", "policy.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    done = run("snakemake", "--lint", "text", "--directory", tmp_path)
    found = set(re.findall(r"^    \* (.*)$", done.stdout, re.MULTILINE))
    assert found == {"Specify a conda environment or container for each rule.:"}, done.stdout


def test_formatting():
    done = run(BIN / "snakefmt", "--check", "Snakefile", "workflow")
    assert done.returncode == 0, done.stdout


def test_snakefile_is_a_table_of_contents():
    text = (REPOSITORY / "Snakefile").read_text()
    assert len(text.splitlines()) < 60
    assert not re.search(r"\b(def|lambda)\b", text)
    assert set(re.findall(r'include: "(.*)"', text)) == {relative(file) for file in RULES}


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.name)
def test_functions_are_in_common_alone(file):
    text = file.read_text()
    if file.name == "common.smk":
        assert len(text.splitlines()) < 150
    else:
        assert not re.search(r"\b(def|lambda|import|run)\b *[:\w]", re.sub(r'".*?"|#.*', "", text))


@pytest.mark.parametrize("name", sorted(ALL_RULES))
def test_every_rule_has_the_whole_contract(name):
    parts = re.findall(r"^    (\w+):", ALL_RULES[name], re.MULTILINE)
    if name in TARGETS:
        assert parts == ["input"]
        return
    left_out = ("output", "benchmark") if name in GATES else ()
    assert [part for part in CONTRACT if part not in parts] == list(left_out)
    assert "params" in parts or "lookup" not in ALL_RULES[name]


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_scripts_are_small_and_read_no_settings_behind_snakemakes_back(file):
    """A setting that does not come through `params:` triggers no rerun."""
    text = file.read_text()
    assert len(text.splitlines()) <= 70
    assert ast.get_docstring(ast.parse(text))
    assert "snakemake.config" not in text and "params.yaml" not in text
    assert "snakemake." not in text.split('if __name__ == "__main__":')[0]


GPU_SCRIPTS = sorted(
    re.search(r'"\.\./scripts/(.*?)"', body).group(1)
    for body in ALL_RULES.values()
    if re.search(r"^ +gpu=", body, re.MULTILINE)
)


def test_these_rules_use_a_gpu():
    assert GPU_SCRIPTS == [
        "attack.py",
        "attack.py",
        "attack_asking.py",
        "battery.py",
        "infer.py",
        "infer.py",
        "pretrain.py",
        "quantize.py",
        "quantize.py",
        "train.py",
        "unlearn.py",
    ]


@pytest.mark.parametrize("script", GPU_SCRIPTS)
def test_a_job_takes_its_gpu_before_torch_can_ask_for_devices(script, tmp_path):
    """The script up to its call of start_job, as a job runs it."""
    tree = ast.parse((REPOSITORY / "workflow/scripts" / script).read_text())
    started = next(i for i, node in enumerate(tree.body) if "start_job(snakemake)" in ast.unparse(node))
    before = [*tree.body[:started], *ast.parse("start_job(snakemake)").body]
    assert ast.unparse(tree.body[started]).splitlines()[1].strip() == "job = start_job(snakemake)", (
        "something is done before it"
    )
    code = f"""
import sys
import palimpsest.runtime.jobs
def start_job(job):
    assert "torch" not in sys.modules, "torch is imported before the job has its GPU"
    open({str(tmp_path / "called")!r}, "w")
palimpsest.runtime.jobs.start_job, snakemake = start_job, None
{ast.unparse(ast.Module(before, []))}
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "called").exists()


@pytest.mark.parametrize("file", LIBRARY, ids=relative)
def test_the_library_never_names_the_snakemake_of_the_scripts(file):
    """`make lint` holds the imports (pyproject.toml); this is the object that Snakemake puts into a script."""
    names = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
    assert "snakemake" not in names


STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
CHECK = STAGES.pop("check")


def allowed(stage: dict) -> set[str]:
    return set(rules_of(stage, REPOSITORY))


def test_every_rule_belongs_to_one_stage():
    """A rule in two stages could rebuild what an earlier stage put out; one in none would never run under DVC."""
    listed = sorted(name for stage in STAGES.values() for name in allowed(stage))
    assert listed == sorted(set(ALL_RULES) - TARGETS)


@pytest.mark.parametrize("name", sorted(set(ALL_RULES) - TARGETS))
def test_every_rule_depends_on_the_code_of_its_own_script(name):
    (script,) = re.findall(r'"\.\./scripts/(.*?)"', ALL_RULES[name])
    if name == "environment":  # what it builds follows from the requirements alone
        return
    (function,) = re.findall(rf'code=(code_of|code_and_backend_of)\("{script}"\)', ALL_RULES[name])
    imports_the_registry = "palimpsest.quantizers import" in (REPOSITORY / "workflow/scripts" / script).read_text()
    no_quantizer = name == "attack"  # shares its script with attack_quantized
    assert (function == "code_and_backend_of") == (imports_the_registry and not no_quantizer)
    assert not (no_quantizer and "quantizer=" in ALL_RULES[name])


def test_the_check_stage_reads_the_whole_of_params():
    assert CHECK["cmd"] == "palimpsest dvc-params --check"
    assert CHECK["params"] == [{"params.yaml": None}]


@pytest.mark.parametrize("name", STAGES)
def test_stages_depend_on_the_code_of_their_rules(name):
    stage = STAGES[name]
    covered = [Path(dep) for dep in stage["deps"]]
    for file in RULES:
        here = rules(file.read_text())
        if not allowed(stage) & set(here) - TARGETS:
            continue
        used = {relative(file)}
        for body in here.values():
            for script in re.findall(r'"\.\./scripts/(.*?)"', body):
                used |= {f"workflow/scripts/{script}", *code_of(REPOSITORY, script)}
            for script in re.findall(r'code_and_backend_of\("(.*?)"\)', body):
                used |= set(code_of(REPOSITORY, script, *BACKENDS))
        for path in map(Path, sorted(used)):
            assert any(path.is_relative_to(dep) for dep in covered), f"stage {name} lacks the dependency {path}"


@pytest.mark.parametrize("name", STAGES)
def test_stages_keep_their_outputs_and_verify_them(name):
    stage = STAGES[name]
    outputs = stage["outs"] + stage.get("metrics", [])
    assert all(settings["persist"] for output in outputs for settings in output.values())
    target = "all" if name == "report" else name
    assert stage["cmd"].startswith(f"palimpsest stage {name}") and target in ALL_RULES | {"all": ""}


class UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that comes twice is an error:
    by itself PyYAML keeps the last one and loses the others' settings."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), (
            f"twice in {node.start_mark.name}: {sorted({k for k in keys if keys.count(k) > 1})}"
        )
        return super().construct_mapping(node, deep)


def test_the_loader_of_profiles_finds_a_key_that_comes_twice():
    with pytest.raises(AssertionError, match="set-resources"):
        yaml.load("set-resources: {a: 1}\nset-resources: {b: 1}\n", UniqueKeys)


@pytest.mark.parametrize("file", PROFILES, ids=relative)
def test_profiles_name_rules_that_exist_and_no_key_twice(file):
    with open(file) as text:
        profile = yaml.load(text, UniqueKeys)
    named = {*profile.get("set-resources", {}), *profile.get("set-threads", {}), *profile.get("groups", {})}
    assert named - set(ALL_RULES) == set()
    assert set(profile.get("group-components", {})) == set(profile.get("groups", {}).values())


def test_both_slurm_profiles_differ_in_memory_and_time_alone():
    small, large = (
        yaml.safe_load((REPOSITORY / "workflow/profiles" / name / "config.yaml").read_text())
        for name in ("slurm", "slurm-7b")
    )
    resources = large["set-resources"]
    for rule, settings in small["set-resources"].items():
        assert settings.items() <= resources[rule].items()
    wanted = {name for name, body in ALL_RULES.items() if re.search(r"^ +gpu=", body, re.MULTILINE)}
    assert {*wanted, "survival", "score"} == set(resources)
    assert set(large) == set(small)
    for key in set(small) - {"set-resources", "group-components"}:
        assert large[key] == small[key], key
