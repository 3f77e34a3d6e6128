"""Fill the caches of what is compiled before a guest boots: there it is slow, and lost with it.

python -m tests.kernel.warm
"""

from __future__ import annotations

from tests.kernel.test_chain import SEEDS, masks_of
from tests.kernel.test_confirm import SHAPES as SHAPES_WITH_RULES
from tests.kernel.test_examples import SOURCES
from tests.kernel.test_taken_back import SHAPES as SHAPES_TAKEN_BACK
from tests.kernel.test_trial import SHAPES
from xdpctl.model.chain import DEFAULT_ACTIONS, Rules
from xdpctl.model.record import LIBXDP_SLOTS, MAX_SLOTS
from xdpctl.programs.clang import compiled
from xdpctl.roots.dispatcher import object_for


def main() -> None:
    for members in (*range(1, LIBXDP_SLOTS + 4), MAX_SLOTS - 1, MAX_SLOTS):
        object_for((DEFAULT_ACTIONS,) * members)
    for shape in (*SHAPES, *SHAPES_TAKEN_BACK):
        object_for(shape)
    for rules in (Rules(on_end=0), Rules(on_end=1), Rules(on_vacant=1)):
        for members in (1, 2):
            object_for((DEFAULT_ACTIONS,) * members, rules=rules)
    for masks, rules in SHAPES_WITH_RULES:
        object_for(masks, rules=rules)
    for seed in SEEDS:
        object_for(masks_of(seed))
    for path, flags in SOURCES:
        compiled(str(path), flags)


if __name__ == "__main__":
    main()
