"""Devices: what a network's latency will be there, known from its operators before it exists.

    operators ─► features ─► Profile (coefficients, range, error: one TOML file) ─► Prediction

Profiles that ship lie here as TOML files, a user's own in the settings folder; those of this machine (``host``) are
made by ``calibration`` and kept in the cache.
"""
