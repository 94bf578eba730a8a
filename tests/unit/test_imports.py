"""What the import contracts of pyproject.toml leave open:
they compare the modules of a room, and its __init__ is none of them."""

import grimp


def test_no_module_imports_itself_through_others():
    """A module that imports the __init__ of its own room, which imports the module, fails by who is imported first."""
    graph = grimp.build_graph("palimpsest", cache_dir=None)
    imports = [(a, b) for a in sorted(graph.modules) for b in graph.find_modules_directly_imported_by(a)]
    assert ("palimpsest.survival.checkpoints", "palimpsest.quantizers") in imports
    assert [each for each in imports if graph.chain_exists(importer=each[1], imported=each[0])] == []
