"""The windowed statistics, as Flink SQL: what the jobs are, and how they are written out.

`tables.sql` holds the topics, `views.sql` what jobs share, one file each job, `analytics.sql` the
one sink. `flink_main.py` runs them, in Flink's own environment. docs/ANALYTICS.md says what each
job answers.
"""
