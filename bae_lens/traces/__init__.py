"""The paper's first application: the entropy of hidden states by layer, position and number of demonstrations (sections 4.2, 4.3)."""
