"""Injections of growing strength, measured: steering with a feature against its cost, and task vectors (section 5.4)."""
