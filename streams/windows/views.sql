-- What the jobs share: answers, and feedback that was given once and met its answer.
-- The ticks (tables.sql) add no row to them, only their watermark.

CREATE TEMPORARY VIEW answers AS
SELECT
  COALESCE(prompt_id, record_key) AS prompt_id,
  conversation_id,
  model_version,
  finish_reason,
  prompt_chars,
  prompt_sketch,
  passages[1].cosine AS cosine,
  `usage`.completion_tokens AS completion_tokens,
  timings.prompted_ms AS prompted_ms,
  timings.finished_ms AS finished_ms,
  timings.first_token_ms - timings.prompted_ms AS first_token_ms,
  timings.finished_ms - timings.prompted_ms AS total_ms,
  happened
FROM generations_topic
WHERE COALESCE(prompt_id, record_key) IS NOT NULL
  AND model_version IS NOT NULL
  AND finish_reason IS NOT NULL
  AND timings.finished_ms >= timings.prompted_ms
UNION ALL
SELECT '', '', '', '', 0, ARRAY[0e0], 0e0, 0, 0, 0, 0, 0, happened FROM ticks WHERE n < 0;

-- The identity of feedback is join's: its own id, else the event's id, else its place.
CREATE TEMPORARY VIEW feedback_given AS
SELECT
  COALESCE(prompt_id, record_key) AS prompt_id,
  COALESCE(
    feedback_id,
    COALESCE(CAST(headers['ce_source'] AS STRING), '') || '#' || CAST(headers['ce_id'] AS STRING),
    CAST(`partition` AS STRING) || '@' || CAST(`offset` AS STRING)) AS feedback_id,
  rating,
  correction IS NOT NULL AS corrected,
  labels,
  happened
FROM feedback_topic
WHERE COALESCE(prompt_id, record_key) IS NOT NULL
  AND (rating IS NULL OR rating BETWEEN -1 AND 1)
  AND (rating IS NOT NULL OR correction IS NOT NULL OR CARDINALITY(labels) > 0)
UNION ALL
SELECT '', '', 0e0, FALSE, MAP['', ''], happened FROM ticks WHERE n < 0;

-- Of several copies the one that comes first counts. By the order of arrival, for a window would
-- drop what is late, and here it must go on, to be counted as late.
CREATE TEMPORARY VIEW feedback_once AS
SELECT prompt_id, feedback_id, rating, corrected, labels, happened
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY feedback_id ORDER BY PROCTIME()) AS copy
  FROM feedback_given)
WHERE copy = 1;

CREATE TEMPORARY VIEW feedback_too_late AS
SELECT * FROM feedback_once WHERE happened <= CURRENT_WATERMARK(happened);

CREATE TEMPORARY VIEW feedback_on_time AS
SELECT * FROM feedback_once
WHERE CURRENT_WATERMARK(happened) IS NULL OR happened > CURRENT_WATERMARK(happened);

CREATE TEMPORARY VIEW answer_versions AS
SELECT prompt_id, conversation_id, model_version, prompted_ms, finished_ms, happened
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY prompt_id ORDER BY happened DESC) AS copy
  FROM answers)
WHERE copy = 1;

-- The join as of the feedback's time, with a bound: the pairs of an interval join. The windows
-- after an interval join however could close only when the whole interval had passed.
CREATE TEMPORARY VIEW feedback_met AS
SELECT
  f.prompt_id, f.feedback_id, f.rating, f.corrected, f.labels, f.happened,
  COALESCE(a.happened + ${join} >= f.happened, FALSE) AS matched,
  a.model_version, a.conversation_id, a.prompted_ms, a.finished_ms
FROM feedback_on_time AS f
LEFT JOIN answer_versions FOR SYSTEM_TIME AS OF f.happened AS a ON f.prompt_id = a.prompt_id;

CREATE TEMPORARY VIEW feedback_matched AS
SELECT * FROM feedback_met WHERE matched;
