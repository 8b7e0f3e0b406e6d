-- Job 4: conversations, which end when nothing more is said for a while: how many turns, how many
-- were abandoned (the last answer failed, was cancelled or rated below 0), how long until an
-- answer was rated above 0. Told in the window in which they end.

CREATE TEMPORARY VIEW conversation_facts AS
SELECT
  conversation_id, happened, prompted_ms, 1 AS turns, finished_ms,
  CASE WHEN finish_reason IN ('error', 'cancelled') THEN finished_ms END AS bad_ms,
  CAST(NULL AS BIGINT) AS good_ms
FROM answers WHERE conversation_id IS NOT NULL
UNION ALL
SELECT
  conversation_id, happened, prompted_ms, 0, finished_ms,
  CASE WHEN rating < 0 THEN finished_ms END,
  CASE WHEN rating > 0 THEN finished_ms END
FROM feedback_matched WHERE conversation_id IS NOT NULL;

CREATE TEMPORARY VIEW conversations_ended AS
SELECT
  window_time AS happened,
  SUM(turns) AS turns,
  COALESCE(MAX(bad_ms) >= MAX(finished_ms), FALSE) AS abandoned,
  MIN(good_ms) - MIN(prompted_ms) AS good_answer_ms
FROM SESSION(
  TABLE conversation_facts PARTITION BY conversation_id, DESCRIPTOR(happened), ${session})
GROUP BY conversation_id, window_start, window_end, window_time;

CREATE TEMPORARY VIEW conversations AS
SELECT
  'conversations' AS record_key,
  'conversations' AS `name`,
  window_start,
  window_end,
  JSON_OBJECT() AS labels,
  JSON_OBJECT(
    KEY 'conversations' VALUE conversations,
    KEY 'turns_mean' VALUE turns_mean,
    KEY 'abandoned_share' VALUE abandoned_share,
    KEY 'good_answers' VALUE good_answers,
    KEY 'good_answer_p50_ms' VALUE good_answer_ms[1],
    KEY 'good_answer_p95_ms' VALUE good_answer_ms[2],
    KEY 'good_answer_p99_ms' VALUE good_answer_ms[3]
    ABSENT ON NULL
  ) AS `values`
FROM (
  SELECT
    window_start, window_end,
    COUNT(*) AS conversations,
    AVG(CAST(turns AS DOUBLE)) AS turns_mean,
    AVG(CASE WHEN abandoned THEN 1e0 ELSE 0e0 END) AS abandoned_share,
    COUNT(good_answer_ms) AS good_answers,
    PERCENTILE(
      EXP(ROUND(LN(GREATEST(good_answer_ms, 1)) / 0.02) * 0.02),
      ARRAY[0.5, 0.95, 0.99]) AS good_answer_ms
  FROM TUMBLE(TABLE conversations_ended, DESCRIPTOR(happened), ${window})
  GROUP BY window_start, window_end);
