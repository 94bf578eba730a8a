"""Which files a script of the workflow depends on, read from its text."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from palimpsest.quantizers import QUANTIZERS
from palimpsest.quantizers.registry import OF_FILES
from palimpsest.study import step_code
from palimpsest.study.step_code import EXEMPT, LIBRARY, SCRIPTS, code_of

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def repository(tmp_path) -> Path:
    files = {
        "workflow/scripts/step.py": "from palimpsest.first import f\nfrom palimpsest.errors import E\nimport numpy",
        "workflow/scripts/other.py": "from palimpsest.quantizers import make_quantizer, prove",
        "src/palimpsest/errors.py": "from palimpsest.unused import u",
        "src/palimpsest/first.py": "def f():\n    import palimpsest.second\n    open('table.yaml'), "
        "open('absent.yaml')",
        "src/palimpsest/table.yaml": "a: 1",
        "src/palimpsest/second.py": "from palimpsest import package",
        "src/palimpsest/package/__init__.py": "from palimpsest.package.inner import Inner",
        "src/palimpsest/package/inner.py": "",
        "src/palimpsest/unused.py": "",
        "src/palimpsest/quantizers/__init__.py": "from palimpsest.quantizers.one import One\n"
        "from palimpsest.quantizers.two import Two\nfrom palimpsest.quantizers.proof import prove",
        "src/palimpsest/quantizers/one.py": "from palimpsest.quantizers.base import Base",
        "src/palimpsest/quantizers/two.py": "from palimpsest.quantizers.base import Base",
        "src/palimpsest/quantizers/base.py": "",
        "src/palimpsest/quantizers/proof.py": "",
    }
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def names(files: list[str]) -> list[str]:
    return [name.removeprefix("src/palimpsest/") for name in files]


def test_imports_are_followed_through_functions_packages_and_named_files(repository):
    found = names(code_of(repository, "step.py"))
    assert found == [
        "first.py",
        "package/__init__.py",
        "package/inner.py",
        "second.py",
        "table.yaml",
        f"{SCRIPTS}/step.py",
    ]


def test_of_the_quantizers_only_the_one_that_is_asked_for(repository):
    assert names(code_of(repository, "other.py")) == ["quantizers/proof.py", f"{SCRIPTS}/other.py"]
    one = names(code_of(repository, "other.py", "palimpsest.quantizers.one"))
    assert one == ["quantizers/base.py", "quantizers/one.py", "quantizers/proof.py", f"{SCRIPTS}/other.py"]


def test_what_texts_mention_is_remembered_by_their_content(repository, tmp_path, monkeypatch):
    """As a later process finds it: with nothing in memory but the record beside the bytecode."""
    record = tmp_path / "bytecode/step_code.json"
    monkeypatch.setattr(step_code, "RECORD", record)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def of_a_new_process():
        for function in (step_code._remembered, step_code._used):
            function.cache_clear()
        return [names(code_of(repository, script)) for script in ("step.py", "other.py")]

    try:
        first = of_a_new_process()
        assert json.loads(record.read_text())["found"]
        with monkeypatch.context() as patch:
            patch.setattr(step_code, "_parse", None)  # nothing is parsed again
            assert of_a_new_process() == first
        (repository / "src/palimpsest/first.py").write_text("import palimpsest.unused")
        edited = [["first.py", "unused.py", f"{SCRIPTS}/step.py"], first[1]]
        assert of_a_new_process() == edited
        for content in ("{", json.dumps({"by": "another version", "found": {}})):
            record.write_text(content)
            assert of_a_new_process() == edited
        record.unlink()
        record.mkdir()  # where nothing can be written
        assert of_a_new_process() == edited
    finally:
        step_code._remembered.cache_clear()


@pytest.mark.parametrize(("script", "torch"), [("unlearn.py", True), ("score.py", False), ("quantize.py", False)])
def test_what_a_script_really_imports_is_within(script, torch):
    """Python's own account: every module of the library that is loaded,
    but for packages and for the registry's backends."""
    tree = ast.parse((REPOSITORY / SCRIPTS / script).read_text())
    imports = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    loaded = (
        "found = [m.__file__ for n, m in sorted(sys.modules.items()) if n.startswith('palimpsest')]\n"
        "print('torch' in sys.modules, *found, sep='\\n')"
    )
    if torch:  # as the script does, which spares it what transformers imports beside
        imports.insert(
            0, "from palimpsest.runtime.startup import import_transformers; import_transformers(training=True)"
        )
    command = [sys.executable, "-c", "\n".join([*imports, "import sys", loaded])]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    has_torch, *paths = output.split()
    assert has_torch == str(torch)
    files = {str(Path(path).relative_to(REPOSITORY / LIBRARY)) for path in paths}
    assert len(files) > 3
    modules = {name for name in files if not name.endswith("__init__.py")} - set(EXEMPT)
    assert modules <= set(
        names(code_of(REPOSITORY, script, *(each.__module__ for each in (*QUANTIZERS.values(), *OF_FILES.values()))))
    )


def test_exempt_modules_exist():
    assert all((REPOSITORY / LIBRARY / name).is_file() for name in EXEMPT)
