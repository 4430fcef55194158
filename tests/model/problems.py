"""A problem of refining, with its objective by the definition."""

import torch

from bae_lens.model.descent import TOLERANCE
from bae_lens.model.level_codes import code_costs, level_counts
from bae_lens.model.refine import refine


class Problem:
    """Vectors, a decoder, costs and codes to start from; and the objective by its definition, in fp64, one code at a time."""

    def __init__(self, top, batch, d_in=12, d_sae=30, weight=0.4, seed=0, density=0.15):
        random = torch.Generator().manual_seed(1000 * seed + top)
        self.x = torch.randn(batch, d_in, generator=random) * 2 + 0.5
        self.W_dec = torch.randn(d_sae, d_in, generator=random) * 2 / (d_in**0.5 * max(1, top / 3))
        self.b_dec = torch.randn(d_in, generator=random) * 0.3
        levels = torch.randint(1, top + 1, (batch, d_sae), generator=random)
        self.levels = levels * (torch.rand(batch, d_sae, generator=random) < density)
        seen = torch.randint(1, top + 1, (400, d_sae), generator=random) * (torch.rand(400, d_sae, generator=random) < density)
        self.costs = code_costs(level_counts(seen, top))
        self.top, self.weight = top, weight

    def refine(self, **kwargs):
        arguments = {"levels": self.levels, "x": self.x, "W_dec": self.W_dec, "b_dec": self.b_dec}
        return refine(**{**arguments, "costs": self.costs, "weight": self.weight, **kwargs})

    def objective(self, vector, code):
        error = (self.x[vector].double() - self.b_dec.double()).numpy()
        bits = 0.0
        costs, rows = self.costs.numpy(), self.W_dec.double().numpy()
        for feature, level in enumerate(code):
            bits += costs[feature, level]
            if level:
                error = error - level * rows[feature]
        return float((error**2).sum() + self.weight * bits)

    def tolerance(self, vector):
        return TOLERANCE * (self.x[vector] - self.b_dec).double().pow(2).sum().item()

    def neighbours(self, code):
        """(feature, level) of each move: to any level of a feature that is off; off, or one level beside, of one that is on."""
        for feature, level in enumerate(code):
            others = range(1, self.top + 1) if level == 0 else {0, level - 1, min(level + 1, self.top)} - {level}
            yield from ((feature, other) for other in others)

    def entry_level(self, feature):
        """The level that needs the least r to lower the objective."""
        norm = self.W_dec[feature].double().pow(2).sum().item()
        prices = [self.weight * (self.costs[feature, m] - self.costs[feature, 0]).item() for m in range(self.top + 1)]
        return min(range(1, self.top + 1), key=lambda m: (m * m * norm + prices[m]) / (2 * m))

    def slow_descent(self, vector, moves):
        code = self.levels[vector].tolist()
        entry = [self.entry_level(feature) for feature in range(len(code))]

        def value(feature, level):
            return self.objective(vector, [*code[:feature], level, *code[feature + 1 :]])

        for _ in range(moves):
            here = self.objective(vector, code)
            candidates = [(value(j, m), j, m) for j, m in self.neighbours(code) if code[j] or m == entry[j]]
            off = min((c for c in candidates if not code[c[1]]), default=None)
            if off is not None:
                candidates += [(value(off[1], m), off[1], m) for m in range(1, self.top + 1)]
            best, feature, level = min(c for c in candidates if code[c[1]] or c[1] == off[1])
            if here - best <= self.tolerance(vector):
                break
            code[feature] = level
        return code
