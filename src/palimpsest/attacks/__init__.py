"""Attacks on what unlearning hid, beside quantization: on the weights (relearning, pruning) and in asking (samples,
paraphrases, first words of the answer). The retrained model under the same attack is the floor of each."""

from palimpsest.attacks.kinds import ASKED, KINDS, WEIGHTS, expanded_attacks

__all__ = ["ASKED", "KINDS", "WEIGHTS", "expanded_attacks"]
