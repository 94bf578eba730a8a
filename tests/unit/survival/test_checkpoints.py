"""`palimpsest survive` on small random checkpoints:
the formulas on the whole, files of every kind, and what it says of mistakes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from palimpsest.cli import main
from palimpsest.errors import PalimpsestError
from palimpsest.models.tensors import to_bfloat16
from palimpsest.quantizers import make_quantizer
from palimpsest.survival.checkpoints import FORMATS, survive
from palimpsest.survival.prediction import OUTCOMES
from palimpsest.survival.training_precision import FINER, IN_PLACE

Tensors = dict[str, np.ndarray]
KINDS = {
    "self_attn.q_proj": (128, 256),
    "self_attn.k_proj": (64, 256),
    "self_attn.v_proj": (64, 256),
    "mlp.up_proj": (384, 256),
    "mlp.gate_proj": (384, 256),
    "mlp.down_proj": (256, 384),
}
QUANTIZERS = {name: make_quantizer(settings) for name, settings in FORMATS.items()}
MOVED = 2.0**-9


def make_target() -> Tensors:
    rng = np.random.default_rng(0)
    tensors = {
        f"model.layers.{layer}.{kind}.weight": to_bfloat16(rng.normal(0, 0.02, shape).astype(np.float32))
        for layer in range(2)
        for kind, shape in KINDS.items()
    }
    tensors["model.embed_tokens.weight"] = to_bfloat16(rng.normal(0, 0.02, (50, 256)).astype(np.float32))
    tensors["lm_head.weight"] = to_bfloat16(rng.normal(0, 0.02, (50, 256)).astype(np.float32))
    return tensors | {"model.norm.weight": np.ones(256, np.float32)}


def move(tensors: Tensors, in_place: bool) -> Tensors:
    """In place: weights below MOVED move by 1e-3.
    Otherwise all do, by normal shifts, rounded to bfloat16 at the end."""
    rng = np.random.default_rng(1)
    moved = {}
    for name, weights in tensors.items():
        signs = np.where(rng.random(weights.shape) < 0.5, -1, 1).astype(np.float32)
        shift = (
            np.where(np.abs(weights) < MOVED, 1e-3, 0) if in_place else 1e-4 * np.abs(rng.normal(size=weights.shape))
        )
        moved[name] = to_bfloat16(weights + signs * shift.astype(np.float32))
    return moved


def save(folder: Path, tensors: Tensors, dtype: type = ml_dtypes.bfloat16, shards: int = 1) -> Path:
    folder.mkdir()
    stored = {name: np.ascontiguousarray(array.astype(dtype)) for name, array in tensors.items()}
    if shards == 1:
        save_file(stored, folder / "model.safetensors")
        return folder
    places = {name: f"model-{i % shards}.safetensors" for i, name in enumerate(stored)}
    for file in set(places.values()):
        save_file({name: array for name, array in stored.items() if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    target = make_target()
    return save(tmp_path / "target", target), save(tmp_path / "unlearned", move(target, in_place=True))


def numbers(record: dict) -> dict:
    return {key: record[key] for key in ("formats", "kinds", "update", "outside", "profile", "training")}


def test_sums_over_blocks_are_the_formulas_on_whole_matrices(pair):
    target, moved = make_target(), move(make_target(), in_place=True)
    record = survive(*pair, QUANTIZERS)
    names = [name for name in target if "layers" in name]
    update = np.concatenate([(moved[name].astype(float) - target[name]).ravel() for name in names])
    sizes = np.abs(np.concatenate([target[name].astype(float).ravel() for name in names]))
    for format_name in ("bnb-int8", "bnb-fp4", "rtn-int4", "rtn-int4-g128", "gguf-q4_0", "mxfp4", "torchao-int4"):
        quantizer = QUANTIZERS[format_name]
        before, after = ([quantizer.round(tensors[name]) for name in names] for tensors in (target, moved))
        change = np.concatenate(
            [(b.dequantized.astype(float) - a.dequantized).ravel() for a, b in zip(before, after, strict=True)]
        )
        found = record["formats"][format_name]
        assert found["rho"] == pytest.approx(change @ update / (update @ update), rel=1e-9, abs=1e-12)
        same = np.concatenate([(a.codes == b.codes).ravel() for a, b in zip(before, after, strict=True)])
        assert found["same_code_share"] == same.mean()
        drift = np.concatenate([np.abs(b.scales / a.scales - 1).ravel() for a, b in zip(before, after, strict=True)])
        assert found["scale_drift"] == pytest.approx(drift.mean(), rel=1e-6, abs=1e-12)
        if quantizer.zero_on_grid:
            zeros = np.concatenate([quantizer.is_zero(each).ravel() for each in before])
            assert found["dead_zone_share"] == (zeros & (update != 0)).sum() / (update != 0).sum()
            for octave in record["profile"]:
                inside = (sizes >= octave["from"]) & (sizes < octave["to"])
                assert octave["rounded_to_zero"][format_name] == (zeros & inside).sum()
        else:
            assert found["dead_zone_share"] is None and format_name not in record["profile"][0]["rounded_to_zero"]
    assert record["update"]["changed_share"] == (update != 0).mean()
    assert record["update"]["weights"] == update.size and record["update"]["matrices"] == 12
    assert sum(octave["changed"] for octave in record["profile"]) == (update != 0).sum()
    assert [octave for octave in record["profile"] if octave["from"] >= MOVED and octave["changed"]] == []
    assert list(record["kinds"]) == ["down_proj", "gate_proj", "up_proj", "k_proj", "q_proj", "v_proj"]
    squares = {name: float(((moved[name].astype(float) - target[name]) ** 2).sum()) for name in target}
    outside = sum(square for name, square in squares.items() if "layers" not in name)
    assert record["outside"]["share_of_squared_update"] == pytest.approx(outside / sum(squares.values()), rel=1e-9)


def test_files_and_threads_do_not_matter(tmp_path, pair):
    target, moved = make_target(), move(make_target(), in_place=True)
    expected = numbers(survive(*pair, QUANTIZERS, threads=1))
    sharded = save(tmp_path / "a", target, shards=3), save(tmp_path / "b", moved, shards=2)
    assert numbers(survive(*sharded, QUANTIZERS, threads=3)) == expected
    wide = save(tmp_path / "c", target, np.float32), save(tmp_path / "d", moved, np.float32)
    assert numbers(survive(*wide, QUANTIZERS)) == expected


def test_nvfp4_shares_its_scale_between_the_matrices_of_a_layer(tmp_path):
    """A larger weight in v_proj changes what becomes of q_proj."""
    target = make_target()
    outlier = {name: weights.copy() for name, weights in target.items()}
    outlier["model.layers.0.self_attn.v_proj.weight"][0, 0] = 1.5
    record = survive(save(tmp_path / "a", target), save(tmp_path / "b", outlier), {"nvfp4": QUANTIZERS["nvfp4"]})
    shares = {kind: record["kinds"][kind]["formats"]["nvfp4"]["scale_drift"] for kind in ("q_proj", "up_proj")}
    assert shares["q_proj"] > 0 and shares["up_proj"] == 0


def test_the_command_prints_tables_and_writes_the_record(tmp_path, pair, capsys):
    assert main(["survive", *map(str, pair), "--json", str(tmp_path / "record.json"), "--layers"]) == 0
    output = capsys.readouterr().out
    record = json.loads((tmp_path / "record.json").read_text())
    assert list(record["formats"]) == ["bnb-int8", "bnb-fp4", "bnb-nf4", "rtn-int4", "rtn-int4-g128"]
    for name, found in record["formats"].items():
        assert f"{name} " in output and f"{found['rho']:.2f}" in output
    assert record["training"]["verdict"] == IN_PLACE and record["training"]["moved_below"] == MOVED
    assert IN_PLACE in output and "down_proj" in output and "Which weights changed" in output
    profile = output.split("Which weights changed, and")[1].split("\n\n")[0].splitlines()[1:]
    assert profile[0].split()[-2:] == ["in", "rtn-int4-g128"]
    lowest, highest = ([float(cell.rstrip("%")) for cell in line.split()[-5:]] for line in (profile[1], profile[-1]))
    assert lowest == [100] * 5 and highest == [0] * 5  # where the update is, and where the largest weights are
    assert all(line == line.rstrip() for line in output.splitlines())


def test_shifts_that_add_up_are_told_from_bfloat16_steps(tmp_path):
    target = make_target()
    record = survive(save(tmp_path / "a", target), save(tmp_path / "b", move(target, in_place=False)), {})
    assert record["training"]["verdict"] == FINER
    exact = {name: weights + np.float32(1e-5) for name, weights in target.items()}
    record = survive(tmp_path / "a", save(tmp_path / "c", exact, np.float32), {})
    assert (
        record["training"]["verdict"] == FINER and "values that bfloat16 does not have" in record["training"]["reason"]
    )


def test_the_prediction_names_what_it_rests_on_or_says_that_there_is_none(pair, capsys, monkeypatch):
    outcomes = [(0.0, "restored")] * 9 + [(0.1, "kept"), (0.3, "partly")] + [(1.0, "kept")] * 10
    pairs = [{"rho": rho, "outcome": name, "parameters": 13029120, "foretold": "kept"} for rho, name in outcomes]
    table = {"restored_below": 0.5, "kept_from": 0.5, "measured": pairs, "held_out": "corpus"}
    monkeypatch.setattr("palimpsest.survival.prediction.read_table", lambda: table)
    assert main(["survive", *map(str, pair), "--quantizer", "rtn-int4"]) == 0
    output = capsys.readouterr().out
    basis = output.split("What the predictions rest on: measured pairs of models of about 13 M parameters")[1]
    assert [line.split() for line in basis.splitlines()[1:3]] == [
        ["prediction", "rho", "restored", "partly", "kept"],
        ["restored", "below", "0.50", "9", "1", "1"],
    ]
    assert "wrong for 48% of 21 pairs whose corpus they were not made from; 'kept', said of all, for 48%." in output
    assert "'partly' is never predicted: the two thresholds coincide." in output
    rho = float(next(line for line in output.splitlines() if line.startswith("rtn-int4")).split()[1])
    near = [sum(name == each and abs(place - rho) <= 0.1 for place, name in outcomes) for each in OUTCOMES]
    assert next(line for line in output.splitlines() if line.startswith("rtn-int4")).split()[-2:] == [
        "restored",
        "/".join(map(str, near)),
    ]
    assert sum(near) and "restored/partly/kept within 0.1" in output
    table["kept_from"] = 0.8
    assert main(["survive", *map(str, pair), "--quantizer", "rtn-int4"]) == 0
    assert "never predicted" not in capsys.readouterr().out
    monkeypatch.setattr("palimpsest.survival.prediction.read_table", lambda: None)
    assert main(["survive", *map(str, pair), "--quantizer", "rtn-int4"]) == 0
    output = capsys.readouterr().out
    assert "No prediction: this installation holds no table" in output and "restored" not in output


def test_the_end_says_what_to_do_and_what_weights_cannot_know(pair, capsys, monkeypatch):
    assert main(["survive", *map(str, pair), "--quantizer", "rtn-int4,bnb-nf4,bnb-int8"]) == 0
    *_, last = capsys.readouterr().out.split("\n\n")
    lines = last.splitlines()
    assert lines[0] == "What to do next" and lines[1].startswith("Do not ship rtn-int4: most of the update is")
    assert lines[2].startswith("bnb-nf4 and bnb-int8 keep the update") and "float32" in lines[3]
    assert lines[4] == (
        f"Measure before you ship: palimpsest audit --target {pair[0]} --unlearned {pair[1]} "
        "--formats bnb-nf4,bnb-int8 --forget FORGET.jsonl"
    )
    assert lines[5].startswith("What weights cannot tell: whether the unlearned model had forgotten at all")
    assert main(["survive", *map(str, pair), "--quantizer", "rtn-int4"]) == 0
    assert "None of these formats keeps the update" in capsys.readouterr().out
    monkeypatch.setattr("palimpsest.survival.prediction.read_table", lambda: None)
    assert main(["survive", *map(str, pair), "--quantizer", "rtn-int4"]) == 0
    *_, last = capsys.readouterr().out.split("\n\n")
    assert "ship rtn-int4" not in last and "Measure before you ship" in last


def test_a_model_of_the_hub_is_its_files_in_the_cache(tmp_path, pair, capsys, monkeypatch):
    """A cache as huggingface_hub lays it out, and no network."""
    place = tmp_path / "models--someone--target"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots").mkdir()
    shutil.copytree(pair[0], place / "snapshots" / "abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    outputs, file = [], tmp_path / "record.json"
    for target in map(str, (pair[0], "someone/target", "someone/target@main")):
        assert main(["survive", target, str(pair[1]), "--quantizer", "rtn-int4", "--json", str(file)]) == 0
        output = capsys.readouterr().out
        assert f"--target {target} --unlearned" in output and json.loads(file.read_text())["target"] == target
        outputs.append(output.replace(target, "TARGET"))
    assert outputs[0] == outputs[1] == outputs[2]
    assert json.loads(file.read_text())["folders"]["target"].endswith("snapshots/abc")
    assert "someone/other is no folder here, and cannot be fetched from the hub" in fails(
        capsys, "someone/other", pair[1]
    )


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line on stderr of a command that fails."""
    with pytest.raises(SystemExit, match=r"^1$"):
        main(["survive", *map(str, arguments)])
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("palimpsest: ")
    return captured.err


def test_mistakes_get_one_line_that_names_them(tmp_path, pair, capsys):
    target, unlearned = pair
    tensors = make_target()
    (tmp_path / "empty").mkdir()
    fewer = save(tmp_path / "fewer", {name: array for name, array in tensors.items() if "layers.1" not in name})
    narrow = {name: array[:, :80] if "layers" in name else array for name, array in tensors.items()}
    broken = save(tmp_path / "nan", tensors | {"model.layers.1.mlp.up_proj.weight": np.full((384, 256), np.nan)})
    assert "nowhere is no folder" in fails(capsys, tmp_path / "nowhere", unlearned)
    assert "empty holds no model.safetensors" in fails(capsys, target, tmp_path / "empty")
    assert "hold different tensors" in fails(capsys, target, fewer)
    assert "is both target and unlearned" in fails(capsys, target, target)
    assert "equals" in fails(capsys, target, save(tmp_path / "copy", tensors))
    assert "up_proj.weight holds NaN" in fails(capsys, target, broken)
    assert "Did you mean 'nvfp4'" in fails(capsys, target, unlearned, "--quantizer", "nvpf4")
    for name in ("gptq", "awq", "autoawq", "auto-gptq", "gguf-q4_k_m"):
        assert "snakemake --cores all" in fails(capsys, target, unlearned, "--quantizer", name)
    save(tmp_path / "narrow", narrow)
    moved = save(tmp_path / "narrow2", move(narrow, in_place=True))
    message = fails(capsys, tmp_path / "narrow", moved, "--quantizer", "rtn-int4-g128")
    assert "rtn-int4-g128 shares scales between 128 inputs, which does not divide the 80" in message
    embeddings = {"model.embed_tokens.weight": tensors["model.embed_tokens.weight"]}
    save(tmp_path / "only", embeddings)
    save(tmp_path / "only2", {"model.embed_tokens.weight": embeddings["model.embed_tokens.weight"] * 2})
    assert "no weight matrix besides embeddings" in fails(capsys, tmp_path / "only", tmp_path / "only2")


def test_the_quantizers_of_a_study_are_taken_or_skipped_with_the_reason(tmp_path, pair, capsys):
    params = tmp_path / "params.yaml"
    calibration = "calibration: retain, samples: 8, sample_length: 128"
    params.write_text(
        "quantizers:\n"
        "  bf16: {backend: none}\n"
        "  four: {backend: rtn, bits: 4, group_size: 64, symmetric: true}\n"
        f"  clever: {{backend: gptq, bits: 4, group_size: 128, symmetric: true, damping: 0.01, {calibration}}}\n"
    )
    assert main(["survive", *map(str, pair), "--params", str(params), "--json", str(tmp_path / "record.json")]) == 0
    record = json.loads((tmp_path / "record.json").read_text())
    assert list(record["formats"]) == ["four"] and list(record["skipped"]) == ["clever"]
    assert "Skipped clever: backend 'llmcompressor' rounds by what calibration text does" in capsys.readouterr().out


def test_the_command_starts_without_heavy_libraries(pair):
    code = (
        "import sys; from palimpsest.cli import main; status = main(sys.argv[1:]); "
        "libraries = 'torch', 'transformers', 'bitsandbytes', 'scipy', 'pandas'; "
        "heavy = [name for name in libraries if name in sys.modules]; "
        "sys.exit(heavy or status)"
    )
    done = subprocess.run([sys.executable, "-c", code, "survive", *map(str, pair)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar where nobody watches


WIDE, HALF, BRAIN = np.float32, np.float16, ml_dtypes.bfloat16


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in (WIDE, HALF, BRAIN) for b in (WIDE, HALF, BRAIN)])
def test_a_copy_in_another_type_is_equal_whichever_is_the_finer(tmp_path, capsys, first, second):
    """Weights that neither type of 16 bits holds, from below float16's smallest number to above its largest."""
    rng = np.random.default_rng(2)
    exact = {
        name: (weights * 10.0 ** rng.uniform(-9, 1, weights.shape)).astype(np.float32)
        for name, weights in make_target().items()
    }
    exact["model.norm.weight"] = np.array([65519, 7e4, 1e30, 1e-30] * 64, np.float32)
    with np.errstate(over="ignore"):
        coarse = {name: weights.astype(second if first == WIDE else first) for name, weights in exact.items()}
        copy = {name: np.nan_to_num(weights.astype(WIDE), posinf=65504) for name, weights in coarse.items()}
    if first == WIDE or second == WIDE:
        target = save(tmp_path / "a", exact if first == WIDE else copy, first)
        unlearned = save(tmp_path / "b", exact if second == WIDE else copy, second)
    else:
        small = {name: weights for name, weights in copy.items() if "norm" not in name}
        target, unlearned = save(tmp_path / "a", small, first), save(tmp_path / "b", small, second)
    message = fails(capsys, target, unlearned)
    same = "tensor for tensor" if first == second else "but for the rounding to "
    assert f"equals {target}, {same}" in message, message


@pytest.mark.parametrize(("first", "second"), [(WIDE, BRAIN), (BRAIN, WIDE), (WIDE, HALF), (HALF, BRAIN)])
def test_an_update_between_two_types_is_that_of_both_in_the_coarser(tmp_path, first, second):
    rng = np.random.default_rng(3)
    target = {name: (weights * 1.003).astype(np.float32) for name, weights in make_target().items()}
    moved = {name: weights + np.float32(2e-3) * rng.choice([-1, 1], weights.shape) for name, weights in target.items()}
    mixed = survive(save(tmp_path / "a", target, first), save(tmp_path / "b", moved, second), QUANTIZERS)

    def both(tensors: Tensors, own: type) -> Tensors:
        for kind in [own, *(kind for kind in (HALF, BRAIN) if kind in (first, second))]:
            tensors = {name: weights.astype(kind).astype(np.float32) for name, weights in tensors.items()}
        return tensors

    plain = save(tmp_path / "c", both(target, first), WIDE), save(tmp_path / "d", both(moved, second), WIDE)
    expected = survive(*plain, QUANTIZERS)
    for part in ("formats", "kinds", "update", "outside", "profile"):
        assert mixed[part] == expected[part]


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_wherever_it_is(tmp_path, pair, capsys, name, value):
    tensors = make_target()
    broken = tensors[name].reshape(-1).copy()
    broken[-1] = value
    folder = save(tmp_path / "broken", tensors | {name: broken.reshape(tensors[name].shape)})
    for one, other in ((pair[0], folder), (folder, pair[1]), (folder, folder)):
        if one != other:
            message = fails(capsys, one, other, "--json", tmp_path / "record.json")
            assert f"{name} holds NaN or infinite weights in {folder}, which is not finite" in message
    assert not (tmp_path / "record.json").exists()


def no_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def test_a_default_format_that_does_not_fit_is_skipped_with_a_line(tmp_path, capsys):
    """Width 576, as SmolLM2-135M has it: groups of 128 do not divide it."""
    rng = np.random.default_rng(0)
    shapes = {"self_attn.q_proj": (64, 576), "mlp.down_proj": (576, 64)}
    target = {
        f"model.layers.0.{kind}.weight": rng.normal(0, 0.02, shape).astype(np.float32) for kind, shape in shapes.items()
    }
    target["model.embed_tokens.weight"] = np.ones((10, 576), np.float32)
    pair = save(tmp_path / "a", target), save(tmp_path / "b", move(target, in_place=False))
    file = tmp_path / "record.json"
    assert main(["survive", *map(str, pair), "--json", str(file)]) == 0
    record = json.loads(file.read_text(), parse_constant=no_constant)
    assert list(record["formats"]) == ["bnb-int8", "bnb-fp4", "bnb-nf4", "rtn-int4"]
    reason = "it shares scales between 128 inputs, which does not divide the 64 inputs of model.layers.0.mlp.down_proj"
    assert record["skipped"] == {"rtn-int4-g128": reason}
    assert f"Skipped rtn-int4-g128: {reason}." in capsys.readouterr().out
    assert "does not divide the 64 inputs" in fails(capsys, *pair, "--quantizer", "bnb-nf4,rtn-int4-g128")


def test_a_format_whose_scales_overflow_is_skipped_or_named(tmp_path, capsys):
    """GGUF keeps scales in float16, which ends at 65504: a weight of 1e7 in q4_0 would need 1.25e6."""
    large = make_target()
    large["model.layers.0.mlp.up_proj.weight"] = large["model.layers.0.mlp.up_proj.weight"] * np.float32(1e9)
    pair = save(tmp_path / "a", large), save(tmp_path / "b", move(large, in_place=True))
    message = fails(capsys, *pair, "--quantizer", "gguf-q4_0")
    assert "gguf-q4_0 has no number for weights as large as those of model.layers.0.mlp.up_proj" in message
    record = survive(*pair, {name: QUANTIZERS[name] for name in ("gguf-q4_0", "rtn-int4")}, may_skip=True)
    assert list(record["formats"]) == ["rtn-int4"] and list(record["skipped"]) == ["gguf-q4_0"]
    json.dumps(record, allow_nan=False)


def test_buffers_are_no_part_of_the_comparison(tmp_path, pair):
    """Rotary frequencies and masks: old checkpoints store them, new ones do not, and no update is in them."""
    expected = numbers(survive(*pair, QUANTIZERS))
    buffers = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32) for layer in range(2)}
    with_mask = buffers | {"model.layers.0.attn.bias": np.full((1, 1, 4, 4), -np.inf, np.float32)}
    target, moved = make_target(), move(make_target(), in_place=True)
    others = {name: buffer * 2 for name, buffer in buffers.items()}
    found = survive(save(tmp_path / "a", target | with_mask), save(tmp_path / "b", moved | others), QUANTIZERS)
    assert numbers(found) == expected
    assert numbers(survive(save(tmp_path / "c", target | with_mask), pair[1], QUANTIZERS)) == expected


def test_tensors_without_rows_or_columns_hold_no_weights(tmp_path, pair):
    expected = numbers(survive(*pair, QUANTIZERS))
    empty = {"model.layers.2.mlp.up_proj.weight": np.zeros((0, 256), np.float32)}
    empty |= {"model.layers.2.mlp.down_proj.weight": np.zeros((256, 0), np.float32), "e": np.zeros(0, np.float32)}
    target, moved = make_target() | empty, move(make_target(), in_place=True) | empty
    assert numbers(survive(save(tmp_path / "a", target), save(tmp_path / "b", moved), QUANTIZERS)) == expected


def write_raw(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    """A safetensors file byte by byte, with types that no library writes here."""
    header, content = {}, b""
    for name, (kind, shape, part) in tensors.items():
        places = [len(content), len(content) + len(part)]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": places}
        content += part
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


@pytest.mark.parametrize(("kind", "bits"), [("F8_E8M0", 8), ("F8_E4M3", 8), ("F4", 4), ("F6_E2M3", 6), ("I8", 8)])
@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"])
def test_types_of_other_numbers_are_one_line(tmp_path, capsys, kind, bits, name):
    tensors = {each: ("F32", [64, 64], bytes(4 * 64 * 64)) for each in ("model.layers.0.mlp.down_proj.weight", name)}
    folders = [tmp_path / part for part in "ab"]
    for folder in folders:
        folder.mkdir()
        write_raw(folder / "model.safetensors", tensors | {name: (kind, [64, 64], bytes(8 * bits * 64))})
    assert f"{name} is stored as {kind}" in fails(capsys, *folders)


def test_a_stray_file_beside_shards_is_refused_by_all_who_read(tmp_path, pair, capsys):
    """transformers would read model.safetensors, other programs the shards."""
    from palimpsest.models.checkpoint import load_model

    capsys.readouterr()  # what the import says
    both = save(tmp_path / "both", make_target(), shards=2)
    save_file({"a": np.ones(3)}, both / "model.safetensors")
    message = fails(capsys, pair[0], both)
    assert "holds two models: model.safetensors, and model-0.safetensors, model-1.safetensors of" in message
    with pytest.raises(PalimpsestError, match=r"holds two models: model.safetensors, and model-0.safetensors"):
        load_model(both, None)
    again = save(tmp_path / "again", make_target(), shards=2)
    (again / "model-1.safetensors").write_bytes((again / "model-0.safetensors").read_bytes())
    assert "is in both" in fails(capsys, pair[0], again)


@pytest.mark.parametrize(
    "index",
    [
        b"{}",
        b"[]",
        b'{"weight_map": []}',
        b'{"weight_map": {}}',
        b'{"weight_map": {"a": 3}}',
        b'{"weight_map": {"a": ["b"]}}',
        b'{"weight_map": {"a": "../a.safetensors"}}',
        b'{"weight_map": {"a": "\\ud800"}}',
        b'{"weight_map": {"a": "a\\u0000"}}',
        b'{"weight_map": {"a": ""}}',
        b'{"weight_map": {"a": "."}}',
        b'{"weight_map": {"a": "\xff"}}',
        b'{"weight_map": ' + b"[" * 100_000,
        b'{"metadata": {"total_size": ' + b"9" * 10_000 + b'}, "weight_map": {"a": "a"}}',
        b"",
    ],
)
def test_an_index_that_makes_no_sense_is_one_line_that_names_it(tmp_path, pair, capsys, index):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.safetensors.index.json").write_bytes(index)
    assert str(tmp_path / "bad" / "model.safetensors.index.json") in fails(capsys, pair[0], tmp_path / "bad")


def test_names_of_tensors_reach_no_terminal_as_commands(tmp_path, pair, capsys):
    evil = "model.layers.0.mlp.\x1b[2J\x1b]0;owned\x07up_proj.weight"
    folder = save(tmp_path / "evil", make_target() | {evil: np.ones((256, 256), np.float32)})
    message = fails(capsys, pair[0], folder)
    assert "\x1b" not in message and "\\x1b[2J" in message
    config = json.dumps({"model_type": "gpt_neox"})  # a family with layers of any name
    extra = {"\u202egpt.\x1b[31mred.weight": np.ones((256, 256), np.float32)}
    folders = save(tmp_path / "a", make_target() | extra), save(tmp_path / "b", move(make_target() | extra, True))
    for each in folders:
        (each / "config.json").write_text(config)
    assert main(["survive", *map(str, folders), "--layers"]) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output and "\\x1b[31mred" in output
