"""What does not fit a model that is known is told at planning: formats, positions, calibration text, a missing GPU."""

import copy
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from palimpsest.corpus.sources import load_corpus
from palimpsest.errors import PalimpsestError
from palimpsest.models.families import check_taken
from palimpsest.models.outline import positions_of, write_outline
from palimpsest.models.tensors import open_checkpoint
from palimpsest.quantizers import make_quantizer
from palimpsest.study import run_checks
from palimpsest.study.fit import check_calibration, check_embedded, check_formats, check_positions
from palimpsest.study.params import read_params

REPOSITORY = Path(__file__).parents[3]
DEFAULT = read_params(REPOSITORY / "params.yaml")
DEFAULT["models"]["scratch"] |= {"hidden_size": 768, "mlp_size": 1536}
DEFAULT["corpus"]["settings"] |= {"lines": False, "prompt_words": 16}
GPTQ = DEFAULT["quantizers"]["gptq"]
SMALL = {"hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 2, "max_position_embeddings": 256}


def study(**blocks: dict) -> dict:
    params = copy.deepcopy(DEFAULT)
    for name, block in blocks.items():
        params[name] |= block
    return params


def refused(check, params: dict) -> str:
    with pytest.raises(PalimpsestError) as caught:
        check(params)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**GPTQ, "group_size": 100}, "group_size 100 does not divide the 1536 inputs of model.layers.0.mlp.down_proj"),
        ({**GPTQ, "sample_length": 513}, "sample_length is 513, more than the 512 positions of models.scratch: "),
        ({"backend": "rtn", "bits": 4, "group_size": 512, "symmetric": True}, "group_size 512 does not divide the 768"),
        ({"backend": "hqq", "bits": 4, "group_size": 200, "device": "cpu"}, "group_size 200 does not divide the 1536"),
        ({"backend": "torchao-int8", "group_size": 80}, "group_size 80 does not divide the 1536 inputs of"),
    ],
)
def test_a_format_that_does_not_fit_a_model_from_scratch(settings: dict, message: str) -> None:
    said = refused(check_formats, study(quantizers={"mine": settings}))
    assert said.startswith(f"quantizers.mine: {message}") and "models.scratch" in said


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({"backend": "gguf", "format": "q4_k_m", "outer": "default"}, 640),
        ({"backend": "gguf", "format": "q8_0", "outer": "default"}, 656),
        ({"backend": "microscale", "format": "mxfp4"}, 656),
        ({"backend": "bnb-4bit", "levels": "nf4", "double_quantization": False}, 656),
    ],
)
def test_blocks_that_a_width_does_not_fill(settings: dict, width: int) -> None:
    params = study()
    params["quantizers"] = {"bf16": {"backend": "none"}, "mine": settings}
    check_formats(params)
    params["models"]["scratch"] |= {"mlp_size": width}
    said = refused(check_formats, params)
    assert said.startswith("quantizers.mine: ") and "model.layers.0.mlp.down_proj in models.scratch" in said
    assert f" {width} inputs" in said


def local(folder: Path, weights: bool) -> Path:
    """A checkpoint folder of shapes alone, or a config.json alone."""
    folder.mkdir()
    if weights:
        write_outline(folder, SMALL)
    else:
        (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", **SMALL}))
    return folder


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("key", ["target", "retrain", "base"])
def test_a_folder_that_lies_here_is_known(tmp_path: Path, key: str, weights: bool) -> None:
    folder = local(tmp_path / "mine", weights)
    for source in [str(folder)] + [{"checkpoint": str(folder), "tokenizer": "x"}] * (key != "base"):
        params = study(models={key: source}, training={"max_length": 200})
        params["quantizers"] = {"bf16": {"backend": "none"}, "mine": GPTQ | {"group_size": 64}}
        if key != "base":
            params["models"]["base"] = "some/model"  # on a hub: not known
        where = f"models.{key}" + ".checkpoint" * isinstance(source, dict)
        said = refused(check_formats, params)
        assert said.startswith("quantizers.mine: group_size 64 does not divide the ") and f"{folder} ({where})" in said
        params["quantizers"]["mine"] = GPTQ | {"group_size": 32, "sample_length": 300}
        assert "sample_length is 300, more than the 256 positions of" in refused(check_formats, params)
        params["quantizers"]["mine"]["sample_length"] = 256
        check_formats(params)
        check_positions(params)
        params["inference"]["verbmem_tokens"] = 241
        assert refused(check_positions, params).startswith(
            f"inference.verbmem_tokens is 241, and {folder} ({where}) has 256 positions, of which a prompt takes 16"
        )
    if key == "base":
        params = study(models={"base": str(folder)}, training={"max_length": 257})
        assert refused(check_positions, params).startswith("training.max_length is 257, more than the 256 positions of")


def test_what_is_on_a_hub_is_left_to_the_steps() -> None:
    params = study(models={"target": "a/b", "retrain": "c/d"}, inference={"verbmem_tokens": 10**6})
    params["quantizers"]["gptq"] = GPTQ | {"group_size": 7}
    check_formats(params)
    check_positions(params)


@pytest.mark.parametrize(
    ("inference", "message"),
    [
        ({"verbmem_tokens": 496}, "inference.verbmem_tokens is 496, and models.scratch.context has 512 positions, of"),
        ({"knowmem_tokens": 511}, "inference.knowmem_tokens is 511, and models.scratch.context has 512 positions, of"),
    ],
)
def test_a_continuation_that_no_context_holds(inference: dict, message: str) -> None:
    assert refused(check_positions, study(inference=inference)).startswith(message)
    check_positions(study(inference={key: value - 1 for key, value in inference.items()}))


def test_so_are_answers_of_the_battery_and_shapes_of_a_pretrained_base() -> None:
    params = study(models={"base": "pretrained"}) | {"battery": {"tasks": {"flu": {"max_new_tokens": 511}}}}
    assert refused(check_positions, params).startswith("battery.tasks.flu.max_new_tokens is 511, and models.scratch")
    params["quantizers"] = {"bf16": {"backend": "none"}, "mine": GPTQ | {"group_size": 100}}
    assert refused(check_formats, params).startswith("quantizers.mine: group_size 100 does not divide")


@pytest.mark.parametrize("key", ["prompt_words", "answer_words"])
def test_an_embedded_corpus_is_checked_before_its_step(key: str) -> None:
    params = study()
    check_embedded(params)
    params["corpus"]["settings"][key] = 99
    assert refused(check_embedded, params) == (
        "corpus.settings: corpus split verbmem is empty: every split needs at least one entry."
    )


def test_planning_counts_the_tokens_of_the_calibration_text_as_its_step_does(tmp_path: Path) -> None:
    from palimpsest.models.scratch import train_tokenizer

    corpus = load_corpus("embedded", DEFAULT["corpus"]["settings"])
    texts = [*corpus.forget, *corpus.retain, *corpus.holdout]
    train_tokenizer(texts, DEFAULT["models"]["scratch"]["vocabulary"]).save_pretrained(tmp_path)
    most = 1575 // 128
    for samples in (most, most + 1):
        params = study()
        params["quantizers"]["gptq"] = GPTQ | {"samples": samples}
        quantizer = make_quantizer(params["quantizers"]["gptq"])
        if samples == most:
            check_calibration(params)
            assert len(quantizer.encode(tmp_path, corpus.retain)) == samples
        else:
            assert refused(check_calibration, params).startswith(
                "quantizers.gptq: the calibration text (retain) has 1575 tokens, too few for 13 samples of 128: "
            )
            with pytest.raises(PalimpsestError, match="the calibration texts have 1575 tokens, too few"):
                quantizer.encode(tmp_path, corpus.retain)


def test_generic_text_that_is_too_short_whatever_the_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one\n\ntwo\n\nthree\n")
    generic = {"source": "file", "settings": {"path": str(tmp_path / "text.txt"), "documents": 3}}
    params = study(models={"target": "a/b"}, calibration={"generic": generic})
    params["quantizers"]["gptq"] = GPTQ | {"calibration": "generic", "samples": 1, "sample_length": 16}
    said = refused(check_calibration, params)
    assert said.startswith(
        "quantizers.gptq: the calibration text (generic) has at most 15 tokens, too few for 1 samples"
    )
    params["quantizers"]["gptq"]["sample_length"] = 15
    check_calibration(params)


def test_stretches_beyond_the_positions_are_refused_by_the_step_too(tmp_path: Path) -> None:
    write_outline(tmp_path, SMALL)
    with pytest.raises(PalimpsestError, match="sample_length is 300, more than the 256 positions of"):
        make_quantizer(GPTQ | {"sample_length": 300}).encode(tmp_path, ["a text"])


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"max_position_embeddings": 7}, 7),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 9}}, 9),
        ({"alibi": True}, None),
    ],
)
def test_positions_by_family(tmp_path: Path, config: dict, positions: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "any", **config}))
    assert positions_of(tmp_path) == positions


def test_an_outline_has_the_shapes_of_the_model(tmp_path: Path, tiny) -> None:
    model, _, _ = tiny
    config = model.config.to_dict()
    write_outline(tmp_path, {key: config[key] for key in SMALL})
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters() if ".0." in name}
    with open_checkpoint(tmp_path) as files:
        assert {name: files.shape(name) for name in files.names()} == {
            name: shape for name, shape in shapes.items() if len(shape) == 2
        }


def test_a_format_of_gpus_alone_needs_one_in_sight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hqq = make_quantizer({"backend": "hqq", "bits": 4, "group_size": 64, "device": "cuda"})
    int4 = make_quantizer({"backend": "torchao-int4", "group_size": 64})
    wildcards = SimpleNamespace(model="target", seed="0", precision="mine")

    def run(main: bool = True, nodes: int | None = None, dryrun: bool = False, **resources: int) -> SimpleNamespace:
        return SimpleNamespace(
            dryrun=dryrun,
            is_main_process=main,
            resource_settings=SimpleNamespace(nodes=nodes),
            global_resources=resources,
        )

    def seen(*gpus: str) -> None:
        monkeypatch.setattr(run_checks, "_visible", lambda: list(gpus))

    seen()
    for quantizer in (hqq, int4):
        with pytest.raises(
            PalimpsestError, match=r"^quantizers.mine is made on a CUDA GPU alone, and there is none in"
        ):
            run_checks.check_gpu(quantizer, wildcards, run())
    run_checks.check_gpu(hqq, wildcards, run(nodes=4))
    run_checks.check_gpu(hqq, wildcards, run(dryrun=True))
    run_checks.check_gpu(hqq, wildcards, run(main=False))
    run_checks.check_gpu(make_quantizer(GPTQ), wildcards, run())
    seen("GPU-1")
    run_checks.check_gpu(hqq, wildcards, run())
    with pytest.raises(PalimpsestError, match="none in sight"):
        run_checks.check_gpu(hqq, wildcards, run(gpu=0))
    seen()
    made = tmp_path / "results/quantized/target/seed0/mine/manifest.json"
    made.parent.mkdir(parents=True)
    made.touch()
    run_checks.check_gpu(hqq, wildcards, run())


@pytest.mark.parametrize("key", ["base", "target", "retrain"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("falcon", r"which bitsandbytes does not quantize here: .* Use rtn, which takes it, or another"),
        ("mixtral", r"which bitsandbytes does not quantize here: .* Use rtn, which takes it, or another"),
        ("mamba", r"which palimpsest is not tested with, so no quantizer here takes it: .* llama \(Llama\), mistral"),
    ],
)
def test_a_family_that_a_format_does_not_take(tmp_path: Path, key: str, kind: str, message: str) -> None:
    """From its config.json alone: the weights need not be there yet."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    params = study(models={key: str(tmp_path)})
    said = refused(check_formats, params)
    assert said.startswith("quantizers.b") and f"{tmp_path} (models.{key}) is a model of type '{kind}'" in said
    assert re.search(message, said)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    check_formats(params)


def test_a_family_of_a_hub_that_a_format_does_not_take() -> None:
    """Known when the model is there, in its own step, before anything is trained."""
    refused = run_checks.refusals_of(
        DEFAULT["quantizers"] | {"file": {"backend": "gguf", "format": "q8_0", "outer": "default"}}
    )
    assert refused["bf16"] == refused["rtn-int4"] == {}
    check_taken("gpt2", refused, "openai-community/gpt2")
    with pytest.raises(
        PalimpsestError, match=r"quantizers.file does not take 'facebook/opt-125m', .* type 'opt'"
    ) as said:
        check_taken("opt", refused, "facebook/opt-125m")
    assert "can go through bf16, bnb-int8, bnb-fp4, bnb-nf4, rtn-int4, gptq; `palimpsest families opt`" in str(
        said.value
    )
