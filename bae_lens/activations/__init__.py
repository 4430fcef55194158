"""Where a BAE's inputs come from: a Llama, text, and the activations that one leaves at the other's hook points."""
