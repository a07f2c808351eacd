"""What a bounded stall can afford, from what steps have taken."""

from __future__ import annotations

import pytest

from engine.costs import SourceCosts, StepCosts


def test_prompts_fit_beside_the_running_decodes() -> None:
    costs = StepCosts()
    assert costs.affordable(0.15, default=16) == 16
    costs.observe(0.05, 3, 0)
    costs.observe(0.05 + 0.2, 3, 100)
    assert costs.affordable(0.15, default=16) == pytest.approx(50, abs=1)
    assert costs.affordable(0.04, default=16) <= 0


def test_short_prompts_and_empty_steps_teach_nothing() -> None:
    costs = StepCosts()
    costs.observe(1.0, 0, 15)
    costs.observe(1.0, 0, 0)
    assert costs.prompt_token is None


def test_what_gets_dearer_is_believed_sooner() -> None:
    """Within three steps of a prompt whose tokens cost twice as much, most of it is known."""
    costs = StepCosts()
    costs.observe(0.1, 0, 100)
    for _ in range(3):
        costs.observe(0.2, 0, 100)
    assert costs.prompt_token == pytest.approx(0.002, rel=0.1)
    costs.observe(0.1, 0, 100)
    assert costs.prompt_token == pytest.approx(0.0017, rel=0.1)


def test_copies_cost_what_they_were_seen_to() -> None:
    costs = SourceCosts()
    assert costs.copying(1000) == 0
    costs.observe_copies(0.5, 1000)
    assert costs.copying(2000) == 1.0
    costs.prompt_token = 0.1
    assert costs.pays(6, copied=1000)
    assert not costs.pays(4, copied=1000)
