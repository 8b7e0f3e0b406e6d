-- Job 1: how good and how fast each version answers, by window.
-- Quantiles are approximate: times are rounded to within 1 % (the buckets of DDSketch, Masson et
-- al., VLDB 2019), so that what PERCENTILE keeps is bounded however many answers a window has.

-- Answers and feedback on one time line, each feedback under the version that it judges.
CREATE TEMPORARY VIEW quality_facts AS
SELECT
  model_version, happened, finish_reason, completion_tokens,
  EXP(ROUND(LN(GREATEST(first_token_ms, 1)) / 0.02) * 0.02) AS first_token_ms,
  EXP(ROUND(LN(GREATEST(total_ms, 1)) / 0.02) * 0.02) AS total_ms,
  CAST(NULL AS DOUBLE) AS rating, CAST(NULL AS BOOLEAN) AS corrected
FROM answers
UNION ALL
SELECT
  model_version, happened, CAST(NULL AS STRING), CAST(NULL AS BIGINT),
  CAST(NULL AS DOUBLE), CAST(NULL AS DOUBLE), rating, corrected
FROM feedback_matched;

CREATE TEMPORARY VIEW quality AS
SELECT
  'quality/' || model_version AS record_key,
  'quality' AS `name`,
  window_start,
  window_end,
  JSON_OBJECT(KEY 'model_version' VALUE model_version) AS labels,
  JSON_OBJECT(
    KEY 'generations' VALUE generations,
    KEY 'answered' VALUE answered,
    KEY 'feedback' VALUE feedback,
    KEY 'feedback_rate' VALUE CAST(feedback AS DOUBLE) / NULLIF(generations, 0),
    KEY 'rated' VALUE rated,
    KEY 'reward_mean' VALUE reward_mean,
    KEY 'positive_share' VALUE positive_share,
    KEY 'corrected' VALUE corrected,
    KEY 'completion_tokens' VALUE completion_tokens,
    KEY 'tokens_per_s' VALUE CAST(completion_tokens AS DOUBLE) / ${window_s},
    KEY 'first_token_p50_ms' VALUE first_token_ms[1],
    KEY 'first_token_p95_ms' VALUE first_token_ms[2],
    KEY 'first_token_p99_ms' VALUE first_token_ms[3],
    KEY 'total_p50_ms' VALUE total_ms[1],
    KEY 'total_p95_ms' VALUE total_ms[2],
    KEY 'total_p99_ms' VALUE total_ms[3]
    ABSENT ON NULL
  ) AS `values`
FROM (
  SELECT
    window_start, window_end, model_version,
    COUNT(finish_reason) AS generations,
    COUNT(*) FILTER (WHERE finish_reason NOT IN ('error', 'cancelled')) AS answered,
    COUNT(corrected) AS feedback,
    COUNT(rating) AS rated,
    AVG(rating) AS reward_mean,
    AVG(CASE WHEN rating > 0 THEN 1e0 WHEN rating <= 0 THEN 0e0 END) AS positive_share,
    COUNT(*) FILTER (WHERE corrected) AS corrected,
    COALESCE(SUM(completion_tokens), 0) AS completion_tokens,
    PERCENTILE(first_token_ms, ARRAY[0.5, 0.95, 0.99]) AS first_token_ms,
    PERCENTILE(total_ms, ARRAY[0.5, 0.95, 0.99]) AS total_ms
  FROM TUMBLE(TABLE quality_facts, DESCRIPTOR(happened), ${window})
  GROUP BY window_start, window_end, model_version);
