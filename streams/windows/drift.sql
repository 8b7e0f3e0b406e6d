-- Job 3: do the last windows look like those before? By version and signal: the population
-- stability index over ten bins (PSI: the sum of (p - q) ln(p / q), each count plus one half, so
-- that an empty bin has a logarithm) and the shift of the mean.
-- The embedding of a prompt is told by a sketch of 16 numbers (models/sketch.py), each a component
-- here; PSI is their mean, and the shift is the distance between the two centroids.

CREATE TEMPORARY VIEW drift_facts AS
SELECT
  model_version, 'reward' AS signal, 0 AS component, rating AS `value`,
  (rating + 1) / 2 AS share, happened
FROM feedback_matched WHERE rating IS NOT NULL
UNION ALL
SELECT
  model_version, 'prompt_chars', 0, CAST(prompt_chars AS DOUBLE),
  LN(1 + prompt_chars) / LN(1e6), happened
FROM answers WHERE prompt_chars >= 0
UNION ALL
SELECT model_version, 'retrieval_score', 0, cosine, GREATEST(cosine, 0e0), happened
FROM answers WHERE cosine IS NOT NULL
UNION ALL
SELECT model_version, 'prompt_embedding', component, `value`, `value` + 0.5, happened
FROM answers CROSS JOIN UNNEST(prompt_sketch) WITH ORDINALITY AS sketch (`value`, component);

-- One row for each window, so that a long reference does not keep every fact.
CREATE TEMPORARY VIEW drift_slices AS
SELECT
  model_version, signal, component, window_time AS happened,
  COUNT(*) AS facts,
  SUM(`value`) AS total,
  COUNT(*) FILTER (WHERE bin = 0) AS b0,
  COUNT(*) FILTER (WHERE bin = 1) AS b1,
  COUNT(*) FILTER (WHERE bin = 2) AS b2,
  COUNT(*) FILTER (WHERE bin = 3) AS b3,
  COUNT(*) FILTER (WHERE bin = 4) AS b4,
  COUNT(*) FILTER (WHERE bin = 5) AS b5,
  COUNT(*) FILTER (WHERE bin = 6) AS b6,
  COUNT(*) FILTER (WHERE bin = 7) AS b7,
  COUNT(*) FILTER (WHERE bin = 8) AS b8,
  COUNT(*) FILTER (WHERE bin = 9) AS b9
FROM (
  SELECT *, LEAST(GREATEST(CAST(FLOOR(share * 10) AS INT), 0), 9) AS bin
  FROM TUMBLE(TABLE drift_facts, DESCRIPTOR(happened), ${window}))
GROUP BY model_version, signal, component, window_start, window_end, window_time;

-- Each hop covers the reference and, at its end, the recent windows that are held against it.
CREATE TEMPORARY VIEW drift_components AS
SELECT
  model_version, signal, component, window_start, window_end,
  SUM(facts) FILTER (WHERE recent) AS n,
  SUM(facts) FILTER (WHERE NOT recent) AS m,
  SUM(total) FILTER (WHERE recent) AS total,
  SUM(total) FILTER (WHERE NOT recent) AS total_reference,
  COALESCE(SUM(b0) FILTER (WHERE recent), 0) AS p0,
  COALESCE(SUM(b0) FILTER (WHERE NOT recent), 0) AS q0,
  COALESCE(SUM(b1) FILTER (WHERE recent), 0) AS p1,
  COALESCE(SUM(b1) FILTER (WHERE NOT recent), 0) AS q1,
  COALESCE(SUM(b2) FILTER (WHERE recent), 0) AS p2,
  COALESCE(SUM(b2) FILTER (WHERE NOT recent), 0) AS q2,
  COALESCE(SUM(b3) FILTER (WHERE recent), 0) AS p3,
  COALESCE(SUM(b3) FILTER (WHERE NOT recent), 0) AS q3,
  COALESCE(SUM(b4) FILTER (WHERE recent), 0) AS p4,
  COALESCE(SUM(b4) FILTER (WHERE NOT recent), 0) AS q4,
  COALESCE(SUM(b5) FILTER (WHERE recent), 0) AS p5,
  COALESCE(SUM(b5) FILTER (WHERE NOT recent), 0) AS q5,
  COALESCE(SUM(b6) FILTER (WHERE recent), 0) AS p6,
  COALESCE(SUM(b6) FILTER (WHERE NOT recent), 0) AS q6,
  COALESCE(SUM(b7) FILTER (WHERE recent), 0) AS p7,
  COALESCE(SUM(b7) FILTER (WHERE NOT recent), 0) AS q7,
  COALESCE(SUM(b8) FILTER (WHERE recent), 0) AS p8,
  COALESCE(SUM(b8) FILTER (WHERE NOT recent), 0) AS q8,
  COALESCE(SUM(b9) FILTER (WHERE recent), 0) AS p9,
  COALESCE(SUM(b9) FILTER (WHERE NOT recent), 0) AS q9
FROM (
  SELECT *, happened >= window_end - ${recent} AS recent
  FROM HOP(TABLE drift_slices, DESCRIPTOR(happened), ${window}, ${drift}))
GROUP BY model_version, signal, component, window_start, window_end;

CREATE TEMPORARY VIEW drift AS
SELECT
  'drift/' || model_version || '/' || signal AS record_key,
  'drift' AS `name`,
  window_end - ${recent} AS window_start,
  window_end,
  JSON_OBJECT(KEY 'model_version' VALUE model_version, KEY 'signal' VALUE signal) AS labels,
  JSON_OBJECT(
    KEY 'psi' VALUE AVG(psi),
    KEY 'mean' VALUE CASE WHEN COUNT(*) = 1 THEN SUM(a) ELSE SQRT(SUM(a * a)) END,
    KEY 'mean_reference' VALUE CASE WHEN COUNT(*) = 1 THEN SUM(b) ELSE SQRT(SUM(b * b)) END,
    KEY 'shift' VALUE CASE WHEN COUNT(*) = 1 THEN SUM(a - b) ELSE SQRT(SUM((a - b) * (a - b))) END,
    KEY 'count' VALUE MAX(n),
    KEY 'count_reference' VALUE MAX(m)
    ABSENT ON NULL
  ) AS `values`
FROM (
  SELECT
    model_version, signal, window_start, window_end, n, m,
    total / n AS a,
    total_reference / m AS b,
    ((p0 + 5e-1) / (n + 5) - (q0 + 5e-1) / (m + 5))
      * LN((p0 + 5e-1) / (n + 5) / ((q0 + 5e-1) / (m + 5)))
    + ((p1 + 5e-1) / (n + 5) - (q1 + 5e-1) / (m + 5))
      * LN((p1 + 5e-1) / (n + 5) / ((q1 + 5e-1) / (m + 5)))
    + ((p2 + 5e-1) / (n + 5) - (q2 + 5e-1) / (m + 5))
      * LN((p2 + 5e-1) / (n + 5) / ((q2 + 5e-1) / (m + 5)))
    + ((p3 + 5e-1) / (n + 5) - (q3 + 5e-1) / (m + 5))
      * LN((p3 + 5e-1) / (n + 5) / ((q3 + 5e-1) / (m + 5)))
    + ((p4 + 5e-1) / (n + 5) - (q4 + 5e-1) / (m + 5))
      * LN((p4 + 5e-1) / (n + 5) / ((q4 + 5e-1) / (m + 5)))
    + ((p5 + 5e-1) / (n + 5) - (q5 + 5e-1) / (m + 5))
      * LN((p5 + 5e-1) / (n + 5) / ((q5 + 5e-1) / (m + 5)))
    + ((p6 + 5e-1) / (n + 5) - (q6 + 5e-1) / (m + 5))
      * LN((p6 + 5e-1) / (n + 5) / ((q6 + 5e-1) / (m + 5)))
    + ((p7 + 5e-1) / (n + 5) - (q7 + 5e-1) / (m + 5))
      * LN((p7 + 5e-1) / (n + 5) / ((q7 + 5e-1) / (m + 5)))
    + ((p8 + 5e-1) / (n + 5) - (q8 + 5e-1) / (m + 5))
      * LN((p8 + 5e-1) / (n + 5) / ((q8 + 5e-1) / (m + 5)))
    + ((p9 + 5e-1) / (n + 5) - (q9 + 5e-1) / (m + 5))
      * LN((p9 + 5e-1) / (n + 5) / ((q9 + 5e-1) / (m + 5))) AS psi
  FROM drift_components
  WHERE n > 0 AND m > 0)
GROUP BY model_version, signal, window_start, window_end;
