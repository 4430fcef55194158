"""Reading what was learnt: statistics of a code, fidelity of a splice, description length."""
