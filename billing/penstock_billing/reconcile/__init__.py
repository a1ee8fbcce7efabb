"""Reconciling: what engines counted, journals hold, events say and the books add up to, compared.

`run.run` is the way in; `report` is what comes out, `engines` says what has to be known of engines.
"""
