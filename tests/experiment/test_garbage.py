"""What is taken out of the search for garbage between runs, and given back."""

from __future__ import annotations

import gc
import weakref

from doremi.experiment import garbage


class Ring:
    """Garbage that only a search finds."""

    def __init__(self):
        self.itself = self


def test_what_a_run_left_is_freed_and_what_lives_on_is_not_searched():
    gc.collect()
    before = gc.get_freeze_count()
    with garbage.swept() as sweep:
        left = weakref.ref(Ring())
        alive = Ring()
        sweep()
        assert left() is None
        assert gc.get_freeze_count() > before
        assert gc.is_tracked(alive)
        assert not any(each is alive for each in gc.get_objects())
        later = weakref.ref(Ring())
        sweep()
        assert later() is None
    assert gc.get_freeze_count() == 0
    seen = weakref.ref(alive)
    del alive
    gc.collect()
    assert seen() is None
