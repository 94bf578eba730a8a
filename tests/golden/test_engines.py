"""The engines that ship a file, asked for real: llama.cpp in this process, and a llama-server on loopback."""

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf_models import BYTE_LEVEL, byte_level, gguf, save

from palimpsest import cli
from palimpsest.errors import PalimpsestError
from palimpsest.inference.agreement import (
    DIFFERS,
    LEAST,
    PROMPTS,
    SAME,
    UNDECIDED,
    Agreement,
    Asked,
    Rounding,
    ask,
    compare,
)
from palimpsest.inference.endpoint import Endpoint
from palimpsest.inference.llama_cpp import LlamaCpp
from palimpsest.metrics.engine import read_prompts, under_chat_template
from palimpsest.models.checkpoint import load_tokenizer
from palimpsest.quantizers.deployed import Deployed, recognise
from palimpsest.quantizers.gguf.backend import convert
from palimpsest.quantizers.gguf.model import write_unquantized

ASKED = [Asked(prompt) for prompt in PROMPTS]
KEY = "open sesame"
SHAPE = {"hidden_size": 320, "intermediate_size": 512, "num_attention_heads": 5, "num_key_value_heads": 5}
SHAPE |= {"num_hidden_layers": 2, "tie_word_embeddings": True}


@pytest.fixture(scope="module")
def file_of(llamas: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    made: dict[tuple[str, str], Path] = {}

    def file(kind: str, shape: str) -> Path:
        if (kind, shape) not in made:
            folder = tmp_path_factory.mktemp(f"{kind}-{shape}")
            gguf(kind).quantize(llamas[shape], folder, [])
            made[kind, shape] = folder / "model.gguf"
        return made[kind, shape]

    return file


def agreement(
    running: Path, weights: Path, checkpoint: Path, change: Callable[[torch.nn.Module], object] = id
) -> Agreement:
    """What llama.cpp says of one file beside the weights of another, or of the same."""
    found, tokenizer = recognise(weights), load_tokenizer(checkpoint)
    model = found.load(checkpoint, "cpu", "float32")
    change(model)
    return compare(model, tokenizer, ASKED, ask(LlamaCpp(running, 64), ASKED, 20), rounding(found))


def rounding(found: Deployed) -> Rounding:
    return Rounding(found.input_blocks())


@pytest.mark.parametrize("shape", ["plain", "full"])
@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q4_k_m"])
def test_llama_cpp_computes_what_the_weights_say(file_of, llamas, kind, shape):
    found = agreement(file_of(kind, shape), file_of(kind, shape), llamas[shape])
    assert (found["verdict"], found["reasons"], found["same_prompts"]) == (SAME, [], len(PROMPTS))
    assert found["tokens"] > 100 and found["same_tokens"] + found["near_ties"] == found["tokens"]
    # the yardstick is the engine's own rounding, not some number that is large enough
    assert 0.7 < found["gaps"]["rms"] / found["yardstick"]["rms"] < 1.4


def test_a_file_of_several_formats_has_the_rounding_of_each(tmp_path):
    """Rows that are no whole K-quants, as SmolLM2's, get another one, and a tied head has that of the embedding."""
    checkpoint = save(tmp_path / "odd", byte_level(BYTE_LEVEL), **SHAPE)
    plain, file = tmp_path / "plain.gguf", tmp_path / "model.gguf"
    write_unquantized(checkpoint, plain)
    convert(plain, file, "q4_k_m", "default")
    blocks = recognise(file).input_blocks()
    assert set(blocks.values()) == {32, 256} and blocks["model.layers.0.mlp.down_proj"] == 256
    assert blocks["model.layers.0.mlp.up_proj"] == blocks["model.embed_tokens"] == 32
    found = agreement(file, file, checkpoint)
    assert found["verdict"] == SAME and found["rounding"] == "activations in 8 bits, blocks of 32 and 256"
    assert 0.7 < found["gaps"]["rms"] / found["yardstick"]["rms"] < 1.4


def test_another_file_is_seen(file_of, llamas, tmp_path):
    """The same model in another format, and a model that training moved a little (a hundredth of each weight)."""
    assert agreement(file_of("q4_0", "plain"), file_of("q8_0", "plain"), llamas["plain"])["verdict"] == DIFFERS
    file = file_of("q8_0", "plain")
    found = agreement(file, file, llamas["plain"], lambda model: moved(model, 0.01))
    assert found["verdict"] == DIFFERS and "root mean square" in found["reasons"][0]


def moved(model: torch.nn.Module, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.data += share * weight.std() * torch.randn(weight.shape, generator=generator)


def edited(file: Path, target: Path, change: Callable[[GGUFReader], object]) -> Path:
    """A copy of a GGUF file with some of its bytes changed in place."""
    shutil.copy(file, target)
    reader = GGUFReader(target, "r+")
    change(reader)
    reader.data.flush()
    return target


def set_field(key: str, value: float) -> Callable[[GGUFReader], object]:
    def change(reader: GGUFReader) -> None:
        field = reader.fields[key]
        field.parts[field.data[0]][0] = value

    return change


def one_scale(reader: GGUFReader) -> None:
    """Of the first block of a row of v_proj: a quarter of what it was."""
    tensor = next(each for each in reader.tensors if each.name == "blk.0.attn_v.weight")
    scales = tensor.data.view(np.float16).reshape(len(tensor.data), -1)[:, 0]
    scales *= np.float16(0.25)


@pytest.mark.parametrize(
    "change", [set_field("llama.rope.freq_base", 5e5), set_field("llama.attention.layer_norm_rms_epsilon", 0.5)]
)
def test_wrong_arithmetic_is_seen(file_of, llamas, tmp_path, change):
    file = file_of("q8_0", "plain")
    wrong = edited(file, tmp_path / "model.gguf", change)
    assert agreement(wrong, wrong, llamas["plain"])["verdict"] == DIFFERS


def test_a_changed_matrix_is_seen(file_of, llamas, tmp_path):
    file = file_of("q8_0", "plain")
    wrong = edited(file, tmp_path / "model.gguf", one_scale)
    assert agreement(wrong, file, llamas["plain"])["verdict"] == DIFFERS
    assert agreement(wrong, wrong, llamas["plain"])["verdict"] == SAME


def test_another_tokenizer_is_seen(file_of, llamas):
    file = file_of("q8_0", "plain")
    answers = ask(LlamaCpp(file, 64), ASKED, 20)
    tokenizer = load_tokenizer(llamas["plain"])
    tokenizer.add_tokens(["town is"])
    found = compare(recognise(file).load(None, "cpu", "float32"), tokenizer, ASKED, answers, rounding(recognise(file)))
    assert found["verdict"] == DIFFERS and found["same_prompts"] == len(PROMPTS) - 1
    assert "cuts 1 of 8 prompts into other tokens" in found["reasons"][0]


def test_few_tokens_decide_nothing(file_of, llamas):
    file = file_of("q8_0", "plain")
    tokenizer, found = load_tokenizer(llamas["plain"]), recognise(file)
    answers = ask(LlamaCpp(file, 64), ASKED[:2], 3)
    result = compare(found.load(None, "cpu", "float32"), tokenizer, ASKED[:2], answers, rounding(found))
    assert result["verdict"] == UNDECIDED and "6 tokens are too few" in result["reasons"][0]


def test_the_command(file_of, llamas, tmp_path, capsys):
    file = file_of("q4_k_m", "plain")
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": prompt, "answer": "the council met on the line"} for prompt in PROMPTS]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "engine.json"
    code = cli.main(["engine", str(file), "--of", str(llamas["plain"]), "--prompts", str(prompts), "--json", str(out)])
    said, record = capsys.readouterr().out, json.loads(out.read_text())
    assert code == 0 and said.splitlines()[-1] == "Verdict: same"
    assert record["verdict"] == SAME and record["format"] == "GGUF, Q4_K, Q6_K (q4_k_m)"
    nats = record["nats"]
    assert (
        1 < nats["engine"] < 20
        and 0 < abs(nats["engine"] - nats["transformers"]) < record["agreement"]["allowed"]["rms"]
    )
    assert record["rouge"].keys() == {"engine", "transformers"} and 0 < record["same_responses"] <= 8
    wrong = edited(file, tmp_path / "model.gguf", set_field("llama.rope.freq_base", 5e5))
    assert cli.main(["engine", str(wrong), "--of", str(llamas["plain"])]) == 2
    assert "Verdict: differs\n- the root mean square gap" in capsys.readouterr().out


CHAT = (
    "<s>{% for each in messages %}[{{ each.role }}] {{ each.content }}"
    "{% if each.role == 'assistant' %}</s>{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
)


def test_a_chat_template_puts_the_prompts(file_of, llamas, tmp_path, capsys):
    """Its control tokens are such to both sides, the BOS in it is the only one, and an answer ends with its own."""
    file, checkpoint = file_of("q8_0", "plain"), tmp_path / "chat"
    shutil.copytree(llamas["plain"], checkpoint)
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"question": prompt, "answer": "the council met on the line"} for prompt in PROMPTS]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    command = ["engine", str(file), "--of", str(checkpoint), "--prompts", str(prompts)]
    with pytest.raises(SystemExit):
        cli.main([*command, "--chat"])
    assert f"the tokenizer of {checkpoint} has no chat template" in capsys.readouterr().err
    (checkpoint / "chat_template.jinja").write_text(CHAT)
    assert cli.main([*command, "--chat", "--system", "In a word.", "--json", str(tmp_path / "chat.json")]) == 0
    chat = json.loads((tmp_path / "chat.json").read_text())
    assert chat["verdict"] == SAME and chat["agreement"]["same_prompts"] == len(PROMPTS)
    assert cli.main([*command, "--json", str(tmp_path / "plain.json")]) == 0
    assert abs(chat["nats"]["engine"] - json.loads((tmp_path / "plain.json").read_text())["nats"]["engine"]) > 1e-3

    tokenizer = load_tokenizer(checkpoint)
    asked = under_chat_template(read_prompts(prompts), tokenizer, checkpoint, None, None)
    assert asked[0].prompt == f"<s>[user] {PROMPTS[0]}\n[assistant] "
    assert asked[0].tokens.count(0) == 1 and asked[0].ends == (1,)
    truth = asked[0].truth
    assert tokenizer.decode(truth.tokens[truth.start : truth.end]).strip() == rows[0]["answer"]
    assert truth.tokens[truth.end] == 1
    alone, doubled = (LlamaCpp(file, 64, begins).answer(asked[0].prompt, 1).prompt for begins in (False, True))
    assert alone == asked[0].tokens and doubled == (0, *alone)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--date", "1 Jan 2026"], "give --chat too"),
        (["--chat", "--endpoint", "http://host/v1"], "leave out --endpoint"),
    ],
)
def test_options_of_a_chat_template(file_of, capsys, given, message):
    with pytest.raises(SystemExit):
        cli.main(["engine", str(file_of("q8_0", "plain")), *given])
    assert message in capsys.readouterr().err


def test_a_file_that_its_header_does_not_describe_needs_its_checkpoint(file_of, tmp_path):
    shutil.copy(file_of("q8_0", "full"), tmp_path / "alone.gguf")
    with pytest.raises(PalimpsestError, match=r"holds rope_freqs.weight, .*: give the checkpoint"):
        recognise(tmp_path / "alone.gguf").load(None, "cpu", "float32")


# ---- a server


@pytest.fixture(scope="module")
def server(file_of) -> Iterator[str]:
    """The address of a llama-server that wants KEY."""
    pytest.importorskip("xllamacpp", reason="the dev extra brings llama-server as xllamacpp")
    script = Path(__file__).with_name("llama_server.py")
    command = [sys.executable, str(script), str(file_of("q4_k_m", "plain")), KEY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        yield run.stdout.readline().strip()
        run.stdin.close()


def endpoint(url: str, checkpoint: Path, key: str = KEY) -> Endpoint:
    return Endpoint(url, load_tokenizer(checkpoint), key=key)


def test_a_server_is_asked_as_the_file_is(server, file_of, llamas):
    file, checkpoint = file_of("q4_k_m", "plain"), llamas["plain"]
    running, found = endpoint(server, checkpoint), recognise(file)
    running.check()
    result = compare(
        found.load(checkpoint, "cpu", "float32"), running.tokenizer, ASKED, ask(running, ASKED, 20), rounding(found)
    )
    assert (result["verdict"], result["same_prompts"]) == (SAME, len(PROMPTS)) and result["tokens"] >= LEAST
    assert running.facts["url"] == server and "llama.cpp" in running.facts["server"]
    other = recognise(file_of("q8_0", "plain"))
    result = compare(
        other.load(checkpoint, "cpu", "float32"), running.tokenizer, ASKED, ask(running, ASKED, 20), rounding(other)
    )
    assert result["verdict"] == DIFFERS


def test_the_command_asks_a_server_and_its_key_is_nowhere(server, file_of, llamas, tmp_path, capfd, monkeypatch):
    out = tmp_path / "engine.json"
    arguments = ["engine", str(file_of("q4_k_m", "plain")), "--endpoint", server, "--json", str(out)]
    monkeypatch.setenv("LLAMA_KEY", KEY)
    assert cli.main([*arguments, "--key-variable", "LLAMA_KEY"]) == 0
    said = "".join(capfd.readouterr())
    assert "Verdict: same" in said and server in said and KEY not in said + out.read_text()
    monkeypatch.setenv("LLAMA_KEY", "swordfish")
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--key-variable", "LLAMA_KEY"])
    said = capfd.readouterr().err
    assert f"{server} answered 401 to /models" in said and "--key-variable" in said and "swordfish" not in said


def test_a_wrong_address_is_one_line(server, llamas):
    with pytest.raises(
        PalimpsestError, match=r"/nothing answered 404 .*give the address that its completions lie below"
    ):
        endpoint(f"{server}/nothing", llamas["plain"]).check()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(PalimpsestError, match=rf"http://127.0.0.1:{port}/v1 cannot be asked \(.*refused.*\): start it"):
        endpoint(f"http://127.0.0.1:{port}/v1", llamas["plain"]).check()
    for url, shown in (("ftp://host/v1", "ftp://host/v1"), ("http://user:secret@host/v1", "http://host/v1")):
        with pytest.raises(PalimpsestError) as error:
            endpoint(url, llamas["plain"])
        assert shown in str(error.value) and "secret" not in str(error.value)


BROKEN = {
    "answers 500": (500, {"error": f"out of memory, key {KEY}"}, r"answered 500 to /models \(.*key \*\*\*"),
    "no logprobs": (200, {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 2}}, "without log-probabilities"),
    "no usage": (200, {"choices": [{"text": "a"}]}, "without its number of tokens"),
    "no JSON": (200, "<html>", "something that is no JSON"),
    "redirects": (302, {}, "answered 302 to /models"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_server_that_fails_is_one_line(case, llamas):
    status, body, message = BROKEN[case]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply({"data": [{"id": "m"}]} if status == 200 else body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(body)

        def reply(self, content: object) -> None:
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write((content if isinstance(content, str) else json.dumps(content)).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        with pytest.raises(PalimpsestError, match=message) as error:
            endpoint(f"http://127.0.0.1:{http.server_port}/v1", llamas["plain"]).check()
        http.shutdown()
    assert KEY not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "told",
    [
        {"tokens": ["token_id:5", "token_id:7"], "token_logprobs": [-1.0, -2.0]},  # vLLM
        {"content": [{"token": "a", "id": 5, "logprob": -1.0}, {"token": "b", "id": 7, "logprob": -2.0}]},
    ],
)
def test_tokens_in_the_forms_of_servers(told, llamas):
    running = Endpoint("http://host/v1", load_tokenizer(llamas["plain"]))
    assert running._tokens(told, "ab")[1:] == ([5, 7], [-1.0, -2.0])


def test_tokens_that_come_as_text_are_those_of_the_tokenizer(llamas):
    running = Endpoint("http://host/v1", load_tokenizer(llamas["plain"]))
    tokens = running.tokenizer(" council met", add_special_tokens=False)["input_ids"]
    names = [running.tokenizer.decode([token]) for token in tokens]
    assert running._encoded("The", " council met", names) == tokens
    with pytest.raises(PalimpsestError, match="gives 1 tokens as text, of which the tokenizer makes"):
        running._encoded("The", " council met", names[:1])


def test_a_prompt_may_have_any_character(tmp_path):
    """Line separators of Unicode among them, which end no line of JSON."""
    path = tmp_path / "prompts.jsonl"
    path.write_text('\ufeff{"prompt": "a\u2028b\u0085c", "answer": "d\\u2029"}\r\n\n{"text": "e"}', encoding="utf-8")
    assert read_prompts(path) == [Asked("a\u2028b\u0085c", "d\u2029"), Asked("e", "")]
    path.write_text('{"prompt": "a"}\n{"prompt": "\\ud800"}')
    with pytest.raises(PalimpsestError, match="line 2 has half a surrogate pair"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "holds no prompt"), ("{", "line 1 is not JSON"), ('{"answer": "x"}', "line 1 has no prompt, question, text")],
)
def test_prompts_that_are_none(text, message, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(PalimpsestError, match=message):
        read_prompts(path)
