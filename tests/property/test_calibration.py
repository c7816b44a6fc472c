"""A calibrated threshold does what it says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import matthews_corrcoef

from core.training.calibration import calibrate, mcc_at_half


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=1, max_size=60))
def test_the_correlation_at_one_half_is_that_of_sklearn_and_undefined_for_one_class(
    windows: list[tuple[int, bool]],
) -> None:
    score = np.array([s / 1000 for s, _ in windows])
    y = np.array([a for _, a in windows], np.uint8)
    found = mcc_at_half(score, y)
    if len(set(y)) < 2:
        assert found is None
    else:
        assert found is not None
        assert np.isclose(found, matthews_corrcoef(y, score > 0.5))


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=2, max_size=60).filter(
        lambda windows: len({attack for _, attack in windows}) == 2
    )
)
def test_the_threshold_reaches_the_mcc_it_names_and_nearly_the_best_there_is(
    windows: list[tuple[int, bool]],
) -> None:
    score = np.array([s / 1000 for s, _ in windows])
    y = np.array([a for _, a in windows], np.uint8)
    found = calibrate(score, y)
    assert found.val_mcc is not None
    best = max((matthews_corrcoef(y, score > t) for t in np.unique(score)), default=0.0)
    if best > 0:
        assert np.isclose(matthews_corrcoef(y, score > found.value), found.val_mcc)
        assert found.val_mcc >= 0.94 * best - 1e-9
