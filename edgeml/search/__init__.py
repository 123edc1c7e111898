"""The search: KerasTuner's oracles, which never propose a network over budget, driven trial by trial.

space ── operators ──► feasibility ◄── budget
                           │ refuses inside the oracle, before a trial exists
KerasTuner oracle ──► runner ──► train ──► ledger (append-only; a search is resumed by replaying it)
"""
