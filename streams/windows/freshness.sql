-- Job 5: how long a document took to be retrievable, and feedback to be part of a live version.
-- The agents measure each (`document_freshness`, `feedback_freshness`); this is their spread.

CREATE TEMPORARY VIEW freshness_facts AS
SELECT
  REPLACE(`name`, '_freshness', '') AS what,
  EXP(ROUND(LN(GREATEST(`values`['freshness_ms'], 1e0)) / 0.02) * 0.02) AS freshness_ms,
  happened
FROM measurements_topic
WHERE `name` IN ('document_freshness', 'feedback_freshness')
  AND `values`['freshness_ms'] IS NOT NULL
UNION ALL
SELECT '', 0e0, happened FROM ticks WHERE n < 0;

CREATE TEMPORARY VIEW `freshness` AS
SELECT
  'freshness/' || what AS record_key,
  'freshness' AS `name`,
  window_start,
  window_end,
  JSON_OBJECT(KEY 'what' VALUE what) AS labels,
  JSON_OBJECT(
    KEY 'count' VALUE facts,
    KEY 'p50_ms' VALUE freshness_ms[1],
    KEY 'p99_ms' VALUE freshness_ms[2]
    ABSENT ON NULL
  ) AS `values`
FROM (
  SELECT
    window_start, window_end, what,
    COUNT(*) AS facts,
    PERCENTILE(freshness_ms, ARRAY[0.5, 0.99]) AS freshness_ms
  FROM TUMBLE(TABLE freshness_facts, DESCRIPTOR(happened), ${window})
  GROUP BY window_start, window_end, what);
