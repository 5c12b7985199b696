"""Long trials of what the library promises: many more cases than a test run has time for.

Each module here is a campaign: its docstring says what must hold, ``COUNT`` how many cases a whole
one has, ``SMALL`` how many the tests run, and ``run(count)`` returns figures by name, among them
``cases`` and ``failures``. ``python -m tests.campaign NAME`` runs one whole and prints its figures.
"""
