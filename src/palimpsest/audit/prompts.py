"""Whether all models were asked the same: a chat template is of each model's own tokenizer."""

from collections.abc import Iterable

from palimpsest.audit.records import Record
from palimpsest.errors import PalimpsestError


def check_asked_alike(scores: Iterable[Record]) -> None:
    """Raise PalimpsestError, which names them, for two models whose prompts differ. Of templates that params.yaml
    holds whole the records say nothing."""
    first: tuple[str, str] | None = None
    for record in scores:
        asked = record.get("template", {}).get("prompts")
        if asked is None:
            continue
        first = first or (record["model"], asked)
        if asked != first[1]:
            raise PalimpsestError(
                f"{record['model']} was asked otherwise than {first[0]}: their tokenizers have chat templates that "
                "differ. Put the same chat_template.jinja beside both, or set another prompt.template."
            )
