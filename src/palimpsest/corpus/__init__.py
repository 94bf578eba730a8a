"""Where the text comes from: the embedded corpus, a MUSE folder or the MUSE hub datasets."""

from palimpsest.corpus.corpus import Corpus, Prompt, Question

__all__ = ["Corpus", "Prompt", "Question"]
