-- All jobs write through this one sink: one transaction for each checkpoint.
-- The JSON is made here and in the jobs, for the format's own would write what is not known as null.

INSERT INTO analytics_topic
SELECT
  record_key,
  JSON_OBJECT(
    KEY 'name' VALUE `name`,
    KEY 'window_start_ms' VALUE
      UNIX_TIMESTAMP(DATE_FORMAT(window_start, 'yyyy-MM-dd HH:mm:ss')) * 1000
      + EXTRACT(MILLISECOND FROM window_start),
    KEY 'window_end_ms' VALUE
      UNIX_TIMESTAMP(DATE_FORMAT(window_end, 'yyyy-MM-dd HH:mm:ss')) * 1000
      + EXTRACT(MILLISECOND FROM window_end),
    KEY 'labels' VALUE JSON(labels),
    KEY 'values' VALUE JSON(`values`)
  ),
  MAP[
    'ce_id', CAST(record_key || '@' || DATE_FORMAT(window_end, 'yyyy-MM-dd HH:mm:ss.SSS') AS BYTES),
    'ce_specversion', CAST('1.0' AS BYTES),
    'ce_type', CAST('io.headwater.statistic' AS BYTES),
    'ce_source', CAST('/windows' AS BYTES),
    'content-type', CAST('application/json' AS BYTES)
  ]
FROM (${statistics});
