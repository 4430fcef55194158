"""A BAE beside SAELens' SAEs on the same activations."""
