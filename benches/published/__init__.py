"""Results that the books print, trained again.

    python -m benches.published                   every row; a quarter of an hour
    python -m benches.published --quick           exact checks, and each row's first epochs
    python -m benches.published --only nnfs-14    some rows; --seeds 10: others than the row's own
    python -m benches.readme                      the table into the README

`rows` says what is trained and what was printed, `runs` trains it through the public interface,
`report` judges and writes `benches/results/published.json` and ``.md``. MNIST and Fashion-MNIST are
read from the folder that ``FASTNN_DATA`` names; rows without their data are left out and named.
"""
