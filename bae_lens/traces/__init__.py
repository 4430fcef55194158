"""The paper's first application: the entropy of hidden states by layer, position and number of demonstrations (section 4)."""
