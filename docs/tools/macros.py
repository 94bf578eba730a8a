"""What the pages of the site may ask for: `{{ ... }}` in Markdown, by mkdocs-macros."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import costs
import counterexamples
import evidence
import figures
import foreign
import reference


def define_env(env) -> None:
    """mkdocs-macros calls this with its environment."""

    @env.macro
    def figure(name: str) -> str:
        """Both files of a figure, of which the page shows the one for its colours, and the message as alt text."""
        up = "../" * env.page.file.src_uri.count("/")
        said = figures.message(name)
        return "\n".join(
            f"![{said}]({up}figures/{name}{theme}.svg#only-{scheme})"
            for theme, scheme in (("", "light"), ("-dark", "dark"))
        )

    @env.macro
    def report_picture() -> str:
        """The picture of the default study's report, where `make pictures` made it."""
        if not (figures.FOLDER / "report.png").is_file():
            return ""
        up = "../" * env.page.file.src_uri.count("/")
        return "\n".join(
            f"![{figures.REPORT}]({up}figures/{name}#only-{scheme})"
            for name, scheme in (("report.png", "light"), ("report-dark.png", "dark"))
        )

    @env.macro
    def message(name: str) -> str:
        return figures.message(name)

    @env.macro
    def percent(part: float, whole: float) -> str:
        return f"{100 * part / whole:.0f} %"

    env.variables["rules"] = {name: f"{value:g}" for name, value in evidence.RULES.items()}
    for function in (
        costs.memory_table,
        costs.beside_table,
        costs.sharded_table,
        costs.evaluation,
        costs.evaluation_table,
        costs.gain,
        costs.paper_hours,
        costs.training,
        evidence.count,
        evidence.kernels_table,
        evidence.default_seeds_table,
        evidence.between_seeds_table,
        evidence.fuzzed,
        evidence.whole,
        evidence.survive_costs_table,
        evidence.pretrained_base,
        evidence.share,
        evidence.moved,
        evidence.retained_table,
        evidence.mean_retained,
        evidence.metric_table,
        evidence.printed,
        evidence.score,
        evidence.spread,
        evidence.target_keeps,
        evidence.kept_share,
        evidence.scores_by_format,
        evidence.shares_by_format,
        evidence.shares_by_denominator,
        evidence.retained,
        evidence.prediction,
        evidence.pairs_wrong,
        evidence.public,
        evidence.twins_table,
        evidence.twins_count,
        evidence.twins_value,
        evidence.attack,
        evidence.attack_table,
        evidence.most_of_attacks,
    ):
        env.macro(function)
    env.macro(counterexamples.table, "counterexamples")
    for name in ("table", "judged_table", "likelier", "verdicts", "returned", "foretold_kept", "seconds", "back"):
        env.macro(getattr(foreign, name), f"foreign_{name}")
    for function in (
        foreign.smollm2_score,
        foreign.smollm2_table,
        foreign.engine_table,
        foreign.engine_ties,
        foreign.audit_time,
    ):
        env.macro(function)
    for function in (
        reference.command_line,
        reference.params,
        reference.losses,
        reference.metrics,
        reference.backends,
        reference.formats_by_families,
    ):
        env.macro(function)
