-- Job 6: the privacy that each adapter spent, and has spent in all, by window.

CREATE TEMPORARY VIEW privacy_facts AS
SELECT adapter, privacy.epsilon AS epsilon, privacy.epsilon_total AS epsilon_total, happened
FROM model_updates_topic
WHERE adapter IS NOT NULL AND privacy.epsilon_total IS NOT NULL
UNION ALL
SELECT '', 0e0, 0e0, happened FROM ticks WHERE n < 0;

CREATE TEMPORARY VIEW privacy_spent AS
SELECT
  'privacy_spent/' || adapter AS record_key,
  'privacy_spent' AS `name`,
  window_start,
  window_end,
  JSON_OBJECT(KEY 'adapter' VALUE adapter) AS labels,
  JSON_OBJECT(
    KEY 'epsilon' VALUE COALESCE(SUM(epsilon), 0e0),
    KEY 'epsilon_total' VALUE MAX(epsilon_total),
    KEY 'rounds' VALUE COUNT(*)
    ABSENT ON NULL
  ) AS `values`
FROM TUMBLE(TABLE privacy_facts, DESCRIPTOR(happened), ${window})
GROUP BY window_start, window_end, adapter;
