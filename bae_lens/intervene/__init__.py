"""Acting on a model through a dictionary: attach, steer, inspect."""
