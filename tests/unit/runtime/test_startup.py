"""What transformers is kept from importing, and when it no longer is."""

import sys
from types import ModuleType

from palimpsest.runtime.startup import OPTIONAL, hidden, import_transformers


def test_packages_look_absent_for_a_while():
    absent = {name for name in OPTIONAL if name not in sys.modules}
    with hidden(OPTIONAL):
        assert {name for name in OPTIONAL if name in sys.modules and sys.modules[name] is None} == absent
    assert not absent & set(sys.modules)


def test_nothing_is_hidden_from_transformers_that_has_asked_before(monkeypatch):
    """It remembers what it found, and imports that later: PEFT, where it makes the Trainer."""
    seen = {}

    class Imported(ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            seen[name] = [package for package in OPTIONAL if sys.modules.get(package, self) is None]

    monkeypatch.setitem(sys.modules, "transformers", Imported("transformers"))
    import_transformers()
    assert seen and not any(seen.values())
