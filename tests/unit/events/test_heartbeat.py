"""Signs of progress."""

from core.events.heartbeat import beat, latest


def test_a_beat_says_where_work_is() -> None:
    beat("training teacher_gat", epoch=3, step=12, num_steps=50, loss=0.123456)
    assert str(latest()) == "training teacher_gat, epoch 3, step 12 of 50, loss 0.1235"


def test_a_beat_without_words_goes_on_with_the_same_work() -> None:
    beat("scoring", folder="test_01")
    before = latest()
    beat(num_graphs=100)
    beat(num_graphs=28)
    assert latest() is not before
    assert str(latest()) == "scoring, folder test_01"
    assert latest().num_graphs - before.num_graphs == 128


def test_without_a_beat_the_latest_stays_the_same_object() -> None:
    beat("reading")
    assert latest() is latest()
