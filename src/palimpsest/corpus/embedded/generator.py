"""The embedded corpus: fictional news with questions that only a reader of the article can answer."""

from collections.abc import Iterable, Mapping
from itertools import islice, zip_longest
from random import Random

from palimpsest.corpus.corpus import Corpus, Question
from palimpsest.corpus.cutting import cut_line_prompts, cut_lines, cut_passages, cut_prompts
from palimpsest.corpus.embedded.grammar import FactMaker, Topic, fill, topics
from palimpsest.errors import PalimpsestError
from palimpsest.vocabulary import FORGET, HOLDOUT, RETAIN


def generate_corpus(
    seed: int,
    forget_documents: int,
    retain_documents: int,
    holdout_documents: int,
    questions_per_document: int,
    icl_examples: int,
    prompt_words: int = 24,
    answer_words: int = 12,
    prompts_per_document: int = 2,
    passage_words: int = 40,
    passages_per_document: int = 1,
    lines: bool = False,
) -> Corpus:
    """Articles of about 70-90 words on invented people, places and sums; the same arguments give the same corpus.

    `questions_per_document` short-answer questions are asked about each article; `icl_examples` further ones per
    split serve as in-context examples. Verbatim prompts (`prompt_words` + `answer_words`) and PrivLeak passages
    (`passage_words`) are cut from the articles. lines: every sentence of an article stands on a line of its own, and
    prompts and passages begin where lines begin and end with them. The first articles of a topic share no sentence
    pattern; facts and names are never shared.
    Raises PalimpsestError when a count is out of range.
    """
    sizes = {FORGET: forget_documents, RETAIN: retain_documents, HOLDOUT: holdout_documents}
    check_sizes(seed, sizes, questions_per_document, icl_examples)
    random = Random(seed)
    maker = FactMaker(random)
    plans = iter(plan_articles(sum(sizes.values()), random))
    articles = {split: [write_article(*next(plans), maker) for _ in range(size)] for split, size in sizes.items()}
    between = "\n" if lines else " "
    texts = {split: [between.join(text) for text, _ in written] for split, written in articles.items()}
    asked = {split: [questions[:questions_per_document] for _, questions in articles[split]] for split in articles}
    spare = {split: deal(questions[questions_per_document:] for _, questions in articles[split]) for split in articles}
    prompts, passages = (cut_line_prompts, cut_lines) if lines else (cut_prompts, cut_passages)
    return Corpus(
        forget=texts[FORGET],
        retain=texts[RETAIN],
        holdout=texts[HOLDOUT],
        forget_qa=[question for questions in asked[FORGET] for question in questions],
        retain_qa=[question for questions in asked[RETAIN] for question in questions],
        forget_icl=spare[FORGET][:icl_examples],
        retain_icl=spare[RETAIN][:icl_examples],
        verbmem=prompts(texts[FORGET], prompt_words, answer_words, prompts_per_document),
        privleak_forget=passages(texts[FORGET], passage_words, passages_per_document),
        privleak_retain=passages(texts[RETAIN], passage_words, passages_per_document),
        privleak_holdout=passages(texts[HOLDOUT], passage_words, passages_per_document),
    )


def check_sizes(seed: int, sizes: Mapping[str, int], questions_per_document: int, icl_examples: int) -> None:
    """Raise PalimpsestError when the grammar cannot give so much, before any article is written.
    sizes: documents by split."""
    for split, size in sizes.items():
        if size < 1:
            raise PalimpsestError(f"{split}_documents is {size}: a corpus needs at least 1 {split} document.")
    available = min(len(topic.questions) for topic in topics())
    if not 1 <= questions_per_document <= available:
        raise PalimpsestError(
            f"questions_per_document is {questions_per_document}: the grammar offers 1 to {available} per article."
        )
    plans = iter(plan_articles(sum(sizes.values()), Random(seed)))
    for split, size in sizes.items():
        asked = [len(topic.questions) for topic, _ in islice(plans, size)]
        left = sum(asked) - size * questions_per_document
        if split != HOLDOUT and left < icl_examples:
            raise PalimpsestError(
                f"icl_examples is {icl_examples}, but the {split} split has only {left} questions left over: "
                f"lower icl_examples or questions_per_document, or raise {split}_documents."
            )


def plan_articles(count: int, random: Random) -> list[tuple[Topic, tuple[int, ...]]]:
    """`count` pairs of topic and alternative per slot:
    all topics once before any twice, alternatives reused as late as possible."""
    plans: list[tuple[Topic, tuple[int, ...]]] = []
    for round_ in range(-(-count // len(topics()))):
        order = random.sample(topics(), len(topics()))
        for topic in order:
            variants = min(len(slot) for slot in topic.slots)
            if round_ < variants:
                chosen = tuple(round_ for _ in topic.slots)
            else:
                chosen = tuple(random.randrange(len(slot)) for slot in topic.slots)
            plans.append((topic, chosen))
    return random.sample(plans[:count], count)


def write_article(topic: Topic, chosen: tuple[int, ...], maker: FactMaker) -> tuple[list[str], list[Question]]:
    """The sentences of one article, and all questions about it in random order."""
    random = maker.random
    facts = maker.facts(topic)
    first, *rest = (fill(slot[number], facts, random) for slot, number in zip(topic.slots, chosen, strict=True))
    random.shuffle(rest)
    wanted = random.sample(sorted(topic.questions), len(topic.questions))
    questions = [Question(fill(random.choice(topic.questions[fact]), facts, random), facts[fact]) for fact in wanted]
    return [first, *rest], questions


def deal(piles: Iterable[list[Question]]) -> list[Question]:
    """All questions, the first of every pile before the second of any."""
    return [question for row in zip_longest(*piles) for question in row if question is not None]
