"""Decision trees of scikit-learn as members: fitted within a budget, compiled into one Keras graph. The only door.

    size ─► bound ─► within budget? ─► fit ─► scikit-learn's model ─► trees ─► tables ─► TreeEnsemble ─► softmax

A random forest (Breiman 2001) averages probabilities, histogram gradient boosting (Ke et al. 2017, LightGBM) adds up
logits. Inputs of any shape are flattened and are finite: where a missing value would go is not compiled. Thresholds are
rounded down to float32, so that float32 decides as float64 did. There is no other form.
"""

from edgeml.trees.fitting import KINDS, SIZES, TreeCandidate, candidates, fit
from edgeml.trees.graph import bound, compiled, operators

__all__ = ["KINDS", "SIZES", "TreeCandidate", "bound", "candidates", "compiled", "fit", "operators"]
