"""What each type of error costs, after TIDE (Bolya et al., ECCV 2020, https://arxiv.org/abs/2008.08115)."""

import numpy as np

from mmgn.evaluation.average_precision import average_precision, running_counts
from mmgn.evaluation.errors import KINDS, kinds
from mmgn.evaluation.matching import Matches

_TYPES = {"Cls": "classification", "Loc": "localisation", "Both": "both", "Dupe": "duplicate", "Bkg": "background"}


def tide(matches: Matches) -> dict[str, float]:
    """Return by error type the AP at IoU 0.5 that its absence would give back, as a fraction of 1.

    ``Cls``, ``Loc``, ``Both``, ``Dupe``, ``Bkg`` and ``Miss`` are mended one by one, as in the paper: of those that
    would find an object with another class or box the best scored one does, the others vanish, as do all of ``Both``,
    ``Dupe`` and ``Bkg``; a missed object that none of them would find is no longer asked for. The gains do not add up
    to what is missing from 1. ``FP`` drops every false detection, ``FN`` asks for no missed object.

    Matching and recall levels are COCO's, so that the gains are over ``mAP_50``. The authors' tidecv differs where an
    image has over 100 detections of all classes, in the order of equal scores, for classes without objects, and in
    the last bits of its recall levels.
    """
    state = _State(matches)
    before = state.mean_ap(state.label, state.found, state.counted, state.objects)
    gains = {}
    for name, kind in _TYPES.items():
        error = state.kind == KINDS.index(kind)
        mended = error & state.claims
        label = np.where(mended, state.claimed_label, state.label)
        after = state.mean_ap(label, state.found | mended, (state.counted & ~error) | mended, state.objects)
        gains[name] = max(after - before, 0.0)
    unclaimed = state.objects - state.count(state.missed & ~state.claimed)
    gains["Miss"] = max(state.mean_ap(state.label, state.found, state.counted, unclaimed) - before, 0.0)
    gains["FP"] = state.mean_ap(state.label, state.found, state.found, state.objects) - before
    found = state.objects - state.count(state.missed)
    gains["FN"] = state.mean_ap(state.label, state.found, state.counted, found) - before
    return gains


class _State:
    """Detections and objects at IoU 0.5, and which error claims which object."""

    def __init__(self, matches: Matches) -> None:
        self.matches = matches
        self.label = matches.label
        self.found = matches.found[:, 0]
        self.counted = ~matches.ignored[:, 0]
        self.objects = matches.objects_of
        self.kind = kinds(matches)
        self.missed = ~matches.crowd
        self.missed[matches.match[self.found, 0]] = False
        loc, cls = (self.kind == KINDS.index(kind) for kind in ("localisation", "classification"))
        target = np.where(cls, matches.other_object, matches.own_object)
        candidates = np.flatnonzero(loc | cls)
        candidates = candidates[self.missed[target[candidates]]]
        # The best scored one comes first, and np.unique takes the first.
        candidates = candidates[np.argsort(-matches.score[candidates], kind="stable")]
        claimed, first = np.unique(target[candidates], return_index=True)
        self.claimed = np.zeros(len(matches.crowd), dtype=bool)
        self.claimed[claimed] = True
        #: Detections that find an object once they are mended, and its class.
        self.claims = np.zeros(len(self.label), dtype=bool)
        self.claims[candidates[first]] = True
        self.claimed_label = self.label.copy()
        self.claimed_label[candidates[first]] = matches.object_label[claimed]

    def count(self, objects: np.ndarray) -> np.ndarray:
        """Return the number of these objects by class."""
        return np.bincount(self.matches.object_label[objects], minlength=len(self.objects))

    def mean_ap(self, label: np.ndarray, found: np.ndarray, counted: np.ndarray, objects: np.ndarray) -> float:
        """Return the mean AP of the classes that had objects; 0 for one that has only detections left."""
        order = np.lexsort((-self.matches.score, label))
        label, found, counted = label[order], found[order], counted[order]
        values = []
        for k in np.flatnonzero(self.objects):
            own = slice(*np.searchsorted(label, [k, k + 1]))
            if objects[k]:
                values.append(float(average_precision(*running_counts(found[own], counted[own]), objects[k])))
            elif counted[own].any():
                values.append(0.0)
        return float(np.mean(values)) if values else 0.0
