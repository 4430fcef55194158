"""Capacity on paper: what training takes in memory, hours and money, before any of it is started."""
