"""SAEDashboard's feature page of a BAE's graded view, whose `architecture()` is the "standard" that the tool knows."""

from typing import Any

from common import Finding, Setup, full_windows, run_script

SHOWN = 24
"""Features on the page: those whose density is nearest to 1 %."""
TOKENS = 32_768


def check(setup: Setup) -> Finding:
    import torch
    from sae_dashboard.data_writing_fns import save_feature_centric_vis
    from sae_dashboard.sae_vis_data import SaeVisConfig
    from sae_dashboard.sae_vis_runner import SaeVisRunner

    from bae_lens.model.views import graded_view

    tokens = full_windows(setup, 128, TOKENS)
    view = graded_view(setup.bae, architecture="standard")
    features = chosen(setup, tokens)
    expected = activations(setup, graded_view(setup.bae, architecture="standard"), tokens)
    config = SaeVisConfig(hook_point=setup.hook_name, features=features, minibatch_size_features=8, minibatch_size_tokens=32)
    data = SaeVisRunner(config).run(encoder=view, model=setup.model, tokens=tokens)
    page = setup.scratch / "features.html"
    save_feature_centric_vis(data, page)
    size = page.stat().st_size
    complaints = []
    if list(data.feature_data_dict) != features:
        complaints.append(f"the page shows features {list(data.feature_data_dict)}, not {features}")
    for feature, shown in data.feature_data_dict.items():
        density = float(shown.acts_histogram_data.title.split("= ")[1].rstrip("%")) / 100
        wanted = (expected[..., feature] > 0).float().mean().item()
        if abs(density - wanted) > 1e-5:
            complaints.append(f"feature {feature} has density {density} on the page and {wanted} in the view")
        if not torch.isfinite(torch.tensor(shown.logits_table_data.top_logits)).all():
            complaints.append(f"feature {feature} has logits that are not finite")
    figures: dict[str, Any] = {"features": len(features), "tokens": tokens.numel(), "page, bytes": size}
    figures["sequences a feature"] = examples(data, features[0])
    ran = f"SaeVisRunner and save_feature_centric_vis, {len(features)} features in batches of 8"
    return Finding(ran, figures, complaints)


def activations(setup: Setup, sae: Any, tokens: Any) -> Any:
    """An SAE's activations on all tokens."""
    import torch

    with torch.no_grad():
        _, cache = setup.model.run_with_cache(tokens, names_filter=setup.hook_name)
        return sae.encode(cache[setup.hook_name])


def chosen(setup: Setup, tokens: Any) -> list[int]:
    """The features whose density is nearest to 1 %, in order."""
    density = (activations(setup, setup.bae, tokens) > 0).float().mean((0, 1))
    return sorted((density.clamp_min(1e-9).log10() + 2).abs().argsort()[:SHOWN].tolist())


def examples(data: Any, feature: int) -> int:
    """How many sequences the page shows for a feature."""
    return sum(len(group.seq_data) for group in data.feature_data_dict[feature].sequence_data.seq_group_data)


if __name__ == "__main__":
    run_script("sae-dashboard", __doc__, check, model_class="HookedSAETransformer")
