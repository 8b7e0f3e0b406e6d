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
-- Here and after the join all columns are packed into one. The planner leaves out columns that a
-- job does not use, and what differs in its columns it runs again for each job, state included.
CREATE TEMPORARY VIEW feedback_once AS
SELECT
  CAST(
    ROW(prompt_id, feedback_id, rating, corrected, labels)
    AS ROW<
      prompt_id STRING, feedback_id STRING, rating DOUBLE, corrected BOOLEAN,
      labels MAP<STRING, STRING>>
  ) AS given,
  happened
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY feedback_id ORDER BY PROCTIME()) AS copy
  FROM feedback_given)
WHERE copy = 1;

CREATE TEMPORARY VIEW feedback_too_late AS
SELECT
  given.prompt_id AS prompt_id, given.feedback_id AS feedback_id, given.rating AS rating, happened
FROM feedback_once WHERE happened <= CURRENT_WATERMARK(happened);

CREATE TEMPORARY VIEW feedback_on_time AS
SELECT given, given.prompt_id AS prompt_id, happened
FROM feedback_once
WHERE CURRENT_WATERMARK(happened) IS NULL OR happened > CURRENT_WATERMARK(happened);

CREATE TEMPORARY VIEW answer_versions AS
SELECT prompt_id, conversation_id, model_version, prompted_ms, finished_ms, happened
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY prompt_id ORDER BY happened DESC) AS copy
  FROM answers)
WHERE copy = 1;

-- The join as of the feedback's time, with a bound: the pairs of an interval join. The windows
-- after an interval join however could close only when the whole interval had passed.
CREATE TEMPORARY VIEW feedback_pairs AS
SELECT
  CAST(
    ROW(f.given, a.model_version, a.conversation_id, a.prompted_ms, a.finished_ms)
    AS ROW<
      given ROW<
        prompt_id STRING, feedback_id STRING, rating DOUBLE, corrected BOOLEAN,
        labels MAP<STRING, STRING>>,
      model_version STRING, conversation_id STRING, prompted_ms BIGINT, finished_ms BIGINT>
  ) AS pair,
  COALESCE(a.happened + ${join} >= f.happened, FALSE) AS matched,
  f.happened
FROM feedback_on_time AS f
LEFT JOIN answer_versions FOR SYSTEM_TIME AS OF f.happened AS a ON f.prompt_id = a.prompt_id;

CREATE TEMPORARY VIEW feedback_met AS
SELECT
  pair.given.rating AS rating,
  pair.given.corrected AS corrected,
  pair.given.labels AS labels,
  pair.model_version AS model_version,
  pair.conversation_id AS conversation_id,
  pair.prompted_ms AS prompted_ms,
  pair.finished_ms AS finished_ms,
  matched,
  happened
FROM feedback_pairs;

CREATE TEMPORARY VIEW feedback_matched AS
SELECT * FROM feedback_met WHERE matched;
