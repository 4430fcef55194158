"""The paper's figures and tables: a function each, from the results of the other commands to one description that is drawn."""
