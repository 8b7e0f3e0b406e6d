-- Job 2: feedback that met its answer within the interval, by version; and what did not.
-- Late feedback, older than the watermark, has no window left to be counted in: each piece is
-- told by itself, with its ids, so that nothing is dropped in silence.

CREATE TEMPORARY VIEW feedback_joined AS
SELECT
  'feedback_joined/' || model_version AS record_key,
  'feedback_joined' AS `name`,
  window_start,
  window_end,
  JSON_OBJECT(KEY 'model_version' VALUE model_version) AS labels,
  JSON_OBJECT(
    KEY 'joined' VALUE COUNT(*),
    KEY 'reward_mean' VALUE AVG(rating)
    ABSENT ON NULL
  ) AS `values`
FROM TUMBLE(TABLE feedback_matched, DESCRIPTOR(happened), ${window})
GROUP BY window_start, window_end, model_version;

CREATE TEMPORARY VIEW feedback_late AS
SELECT
  'feedback_late/' || feedback_id AS record_key,
  'feedback_late' AS `name`,
  CAST(happened AS TIMESTAMP(3)) AS window_start,
  CAST(happened AS TIMESTAMP(3)) AS window_end,
  JSON_OBJECT(KEY 'prompt_id' VALUE prompt_id, KEY 'feedback_id' VALUE feedback_id) AS labels,
  JSON_OBJECT(
    KEY 'late' VALUE 1e0,
    KEY 'reward_mean' VALUE rating
    ABSENT ON NULL
  ) AS `values`
FROM feedback_too_late
UNION ALL
SELECT
  'feedback_late' AS record_key,
  'feedback_late' AS `name`,
  window_start,
  window_end,
  JSON_OBJECT(KEY 'what' VALUE 'unmatched') AS labels,
  JSON_OBJECT(
    KEY 'unmatched' VALUE COUNT(*),
    KEY 'reward_mean' VALUE AVG(rating)
    ABSENT ON NULL
  ) AS `values`
FROM TUMBLE(
  (SELECT * FROM feedback_met WHERE NOT matched), DESCRIPTOR(happened), ${window})
GROUP BY window_start, window_end;
