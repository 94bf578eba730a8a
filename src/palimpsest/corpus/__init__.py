"""Where the text comes from: the embedded corpus, a MUSE folder or the MUSE hub datasets."""
