"""A server that speaks OpenAI's completions: llama-server, vLLM, Ollama and their like."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from palimpsest.errors import PalimpsestError, first_line
from palimpsest.inference.engines import Answer
from palimpsest.models.encoding import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TIMEOUT = 600.0
TOKEN_ID = "token_id:"
"""How vLLM writes a token where it is asked for numbers."""
HIDDEN = "***"
REMEDIES = {
    401: "it wants another key: set the variable that --key-variable names",
    403: "it wants another key: set the variable that --key-variable names",
    404: "give the address that its completions lie below, such as http://127.0.0.1:8080/v1",
}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


@dataclass
class Endpoint:
    """url: below which /completions lies. tokenizer: the model's, for servers that give tokens as text alone.
    model: as the server calls it; empty: the first that it lists. key: never shown, and sent to this host alone."""

    url: str
    tokenizer: PreTrainedTokenizerBase
    model: str = ""
    key: str = field(default="", repr=False)
    timeout: float = TIMEOUT
    server: str = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PalimpsestError(f"{_shown(self.url)} is no address of a server: give http://HOST:PORT/v1.")
        if parts.username or parts.password or parts.query:
            raise PalimpsestError(
                f"{_shown(self.url)} has a key or a query in it: give the address alone, and the key in a variable."
            )
        self.url = self.url.rstrip("/")

    @property
    def facts(self) -> dict[str, Any]:
        return {"engine": "endpoint", "url": self.url, "model": self.model, "server": self.server}

    def check(self) -> None:
        """Ask for a single token: raises PalimpsestError where the server is not there or does not tell what is
        needed, before any model is loaded here."""
        if not self.model:
            listed = self._ask("models")
            match listed:
                case {"data": [{"id": str(name)}, *_]}:
                    self.model = name
                case _:
                    self._fail("lists no model", "name one with --model")
        self.answer("The", 1)

    def answer(self, prompt: str, tokens: int) -> Answer:
        body = {"model": self.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 1}
        extra = {"seed": 0, "return_tokens_as_token_ids": True, "cache_prompt": False}  # vLLM's and llama-server's
        found = self._ask("completions", body | extra)
        match found:
            case {"choices": [{"text": str(text), **choice}, *_], "usage": {"prompt_tokens": int(count), **usage}}:
                names, numbers, log_probs = self._tokens(choice.get("logprobs"), text)
            case _:
                self._fail("gives a completion without a text or without its number of tokens", "is it OpenAI's form?")
        ids = numbers if len(numbers) == len(log_probs) else self._encoded(prompt, text, names)
        told = len(ids) if usage.get("completion_tokens", len(ids)) == len(ids) else self._whole(names, ids)
        return Answer((), count, tuple(ids[:told]), tuple(log_probs[:told]), text)

    def log_probs(self, tokens: list[int]) -> None:
        return None

    def _tokens(self, told: Any, text: str) -> tuple[list[str], list[int], list[float]]:
        """(tokens as text, their numbers where it tells, log-probabilities)."""
        match told:
            case {"content": list(entries)} if all(_is_entry(entry) for entry in entries):
                names = [entry["token"] for entry in entries]
                numbers = [entry["id"] for entry in entries if isinstance(entry.get("id"), int)]
                values = [float(entry["logprob"]) for entry in entries]
            case {"tokens": list(names), "token_logprobs": list(values)} if len(names) == len(values):
                if not all(isinstance(value, int | float) for value in values):
                    self._fail("has a token without a log-probability", "is its --max-logprobs 0?")
                numbers, values = [], [float(value) for value in values]
            case _ if text:
                self._fail(
                    "answers without log-probabilities", "start it so that it gives them (`logprobs` of completions)"
                )
            case _:
                return [], [], []
        given = [name.removeprefix(TOKEN_ID) for name in names if isinstance(name, str) and name.startswith(TOKEN_ID)]
        if names and len(given) == len(names) and all(number.isdecimal() for number in given):
            numbers = [int(number) for number in given]
        return names, numbers, values

    def _encoded(self, prompt: str, text: str, names: list[str]) -> list[int]:
        """The tokens of an answer that came as text, if the tokenizer makes as many of it."""
        tokens = encode(self.tokenizer, prompt + text)[len(encode(self.tokenizer, prompt)) :]
        if len(tokens) != len(names):
            self._fail(
                f"gives {len(names)} tokens as text, of which the tokenizer makes {len(tokens)}",
                "use a server that gives their numbers (llama-server, vLLM)",
            )
        return tokens

    def _whole(self, names: list[str], ids: list[int]) -> int:
        """How many tokens stand at the beginning, each with its own text. llama-server joins those that end within a
        character with the next one, under the number of that: from there on it is not known what stood before a token.
        """
        for i, (name, number) in enumerate(zip(names, ids, strict=True)):
            if str(self.tokenizer.decode([number])).strip() != name.strip():
                return i
        return len(names)

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, headers)
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout) as reply:
                self.server = reply.headers.get("Server") or ""
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode("utf-8", "replace")
            remedy = REMEDIES.get(error.code, "see what its log says")
            self._fail(f"answered {error.code} to /{path} ({' '.join(said.split())[:200] or error.reason})", remedy)
        except ValueError as error:
            self._fail(f"answered /{path} with something that is no JSON ({first_line(error)})", "is it OpenAI's form?")
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            self._fail(f"cannot be asked ({reason})", "start it, or correct the address")

    def _fail(self, what: str, remedy: str) -> NoReturn:
        what = what.replace(self.key, HIDDEN) if self.key else what
        raise PalimpsestError(f"{self.url} {what}: {remedy.rstrip('.')}.")


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("token"), str)
        and isinstance(entry.get("logprob"), int | float)
    )


def _shown(url: str) -> str:
    """An address without what stands before its host, which may be a key."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else parts.path
