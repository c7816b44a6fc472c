"""The arithmetic of what is done and what is left, for all numbers there can be."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from core.analytics.histograms import Range
from core.planning.live.remaining import (
    Remaining,
    after,
    at_least,
    at_pace,
    epochs_left,
    extrapolated,
    num_worse,
    one_after_the_other,
    share_done,
    weights,
)

SECONDS = st.floats(0.0, 1e7)
PHASES = ("graphs", "teacher", "student", "fusion", "evaluation")
STEPS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(PHASES)), min_size=1, unique=True
)


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    low, middle, high = sorted(draw(st.lists(SECONDS, min_size=3, max_size=3)))
    return Range(low, middle, draw(st.sampled_from([high, math.inf])))


@st.composite
def rests(draw: st.DrawFn) -> Remaining:
    low, middle, high = sorted(draw(st.lists(SECONDS, min_size=3, max_size=3)))
    if draw(st.booleans()):
        return Remaining(low)
    return Remaining(low, middle, draw(st.sampled_from([high, None])))


def is_sound(rest: Remaining) -> bool:
    """No time is negative or infinite, and the bounds lie where they belong."""
    bounds = [bound for bound in (rest.low_s, rest.middle_s, rest.high_s) if bound is not None]
    ordered = all(a <= b * (1 + 1e-9) + 1e-6 for a, b in itertools.pairwise(bounds))
    return ordered and all(bound >= 0 and math.isfinite(bound) for bound in bounds)


@given(st.floats(0, 500), st.integers(1, 500), st.integers(1, 50), st.integers(-1, 50))
def test_a_model_never_needs_more_than_its_epochs_and_stopping_early_only_shortens_it(
    done: float, num_epochs: int, patience: int, worse: int
) -> None:
    left = epochs_left(done, num_epochs, patience, worse)
    assert 0 <= left.low <= left.high == max(0.0, num_epochs - done)


@given(st.lists(st.floats(-1e6, 1e6), max_size=50))
def test_epochs_since_the_best_are_counted_as_early_stopping_counts_them(val_losses: list[float]) -> None:
    best, worse = math.inf, -1
    for loss in val_losses:
        best, worse = (loss, 0) if loss < best else (best, worse + 1)
    assert num_worse(val_losses) == worse


@given(st.floats(0, 100), st.integers(1, 100), st.integers(1, 9), st.lists(st.floats(1e-6, 1e5), max_size=5))
def test_a_pace_gives_a_sound_time(done: float, num_epochs: int, patience: int, paces: list[float]) -> None:
    assert is_sound(at_pace(epochs_left(done, num_epochs, patience, 0), paces))


@given(SECONDS, ranges(), st.floats(0, 1), rests())
def test_every_way_to_guess_gives_a_sound_time(
    elapsed_s: float, whole: Range, fraction: float, known: Remaining
) -> None:
    for rest in (after(elapsed_s, whole), after(elapsed_s, None), extrapolated(elapsed_s, fraction)):
        assert is_sound(rest)
        assert is_sound(at_least(known.low_s, rest))


@given(st.lists(rests(), max_size=8))
def test_a_sum_is_sound_and_unknown_as_soon_as_a_part_is(parts: list[Remaining]) -> None:
    whole = one_after_the_other(parts)
    assert is_sound(whole)
    if any(part.middle_s is None for part in parts):
        assert whole.middle_s is None
        assert whole.low_s == sum(part.low_s for part in parts)


@given(SECONDS, SECONDS, ranges())
def test_the_longer_something_has_gone_on_the_less_is_left(a_s: float, b_s: float, whole: Range) -> None:
    sooner, later = after(min(a_s, b_s), whole), after(max(a_s, b_s), whole)
    if later.middle_s is not None and sooner.middle_s is not None:
        assert later.middle_s <= sooner.middle_s


@given(STEPS, st.data())
def test_the_share_done_is_a_fraction_that_grows_with_each_part(
    steps: list[tuple[str, str]], data: st.DataObject
) -> None:
    known = data.draw(st.dictionaries(st.sampled_from(steps), st.floats(0.0, 1e6)))
    of = weights(steps, known)
    assert of.keys() == set(steps)
    fractions = data.draw(st.fixed_dictionaries({step: st.floats(0, 1) for step in steps}))
    done = share_done(fractions, of)
    assert 0 <= done <= 1
    assert share_done({**fractions, steps[0]: 1.0}, of) >= done
    assert share_done(dict.fromkeys(steps, 1.0), of) == 1.0
