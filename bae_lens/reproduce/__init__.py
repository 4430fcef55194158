"""The whole paper as one job: every experiment in its order, at three sizes, and which of the paper's claims hold here."""
