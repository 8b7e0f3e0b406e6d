-- What the jobs read and write. Names in braces are settings; see streams/windows/options.py.
--
-- Event time is what the writer says, but never after the broker took the record: a clock that
-- is wrong can make its own records late, and cannot close everybody's windows.

CREATE TEMPORARY TABLE generations_topic (
  record_key STRING,
  prompt_id STRING,
  conversation_id STRING,
  model_version STRING,
  finish_reason STRING,
  passages ARRAY<ROW<cosine DOUBLE>>,
  prompt_chars BIGINT,
  prompt_sketch ARRAY<DOUBLE>,
  `usage` ROW<completion_tokens BIGINT>,
  timings ROW<prompted_ms BIGINT, first_token_ms BIGINT, finished_ms BIGINT>,
  appended TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  happened AS COALESCE(LEAST(TO_TIMESTAMP_LTZ(timings.finished_ms, 3), appended), appended),
  WATERMARK FOR happened AS happened - ${lateness}
) WITH (
  ${source},
  'topic' = '${prefix}generations',
  'properties.group.id' = '${prefix}windows-generations',
  'properties.isolation.level' = 'read_committed',
  'key.format' = 'raw', 'key.fields' = 'record_key', 'value.fields-include' = 'EXCEPT_KEY',
  'value.format' = 'json', 'value.json.ignore-parse-errors' = 'true'
);

CREATE TEMPORARY TABLE feedback_topic (
  record_key STRING,
  prompt_id STRING,
  feedback_id STRING,
  rating DOUBLE,
  correction STRING,
  labels MAP<STRING, STRING>,
  headers MAP<STRING, BYTES> METADATA VIRTUAL,
  `partition` INT METADATA VIRTUAL,
  `offset` BIGINT METADATA VIRTUAL,
  appended TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  happened AS COALESCE(
    LEAST(
      CAST(TO_TIMESTAMP(CAST(headers['ce_time'] AS STRING), 'yyyy-MM-dd''T''HH:mm:ss.SSS''Z''')
        AS TIMESTAMP_LTZ(3)),
      appended),
    appended),
  WATERMARK FOR happened AS happened - ${lateness}
) WITH (
  ${source},
  'topic' = '${prefix}feedback',
  'properties.group.id' = '${prefix}windows-feedback',
  'properties.isolation.level' = 'read_committed',
  'key.format' = 'raw', 'key.fields' = 'record_key', 'value.fields-include' = 'EXCEPT_KEY',
  'value.format' = 'json', 'value.json.ignore-parse-errors' = 'true'
);

CREATE TEMPORARY TABLE model_updates_topic (
  adapter STRING,
  model_version STRING,
  published_ms BIGINT,
  privacy ROW<epsilon DOUBLE, epsilon_total DOUBLE>,
  appended TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  happened AS COALESCE(LEAST(TO_TIMESTAMP_LTZ(published_ms, 3), appended), appended),
  WATERMARK FOR happened AS happened - ${lateness}
) WITH (
  ${source},
  'topic' = '${prefix}model-updates',
  'properties.group.id' = '${prefix}windows-model-updates',
  'properties.isolation.level' = 'read_committed',
  'format' = 'json', 'json.ignore-parse-errors' = 'true'
);

-- Read uncommitted: the agents write measurements without transactions, and those that the
-- windows write themselves would hold them back until the next checkpoint.
CREATE TEMPORARY TABLE measurements_topic (
  `name` STRING,
  window_end_ms BIGINT,
  `values` MAP<STRING, DOUBLE>,
  appended TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  happened AS COALESCE(LEAST(TO_TIMESTAMP_LTZ(window_end_ms, 3), appended), appended),
  WATERMARK FOR happened AS happened - ${lateness}
) WITH (
  ${source},
  'topic' = '${prefix}analytics',
  'properties.group.id' = '${prefix}windows-analytics',
  'properties.isolation.level' = 'read_uncommitted',
  'format' = 'json', 'json.ignore-parse-errors' = 'true'
);

-- A clock: its rows never pass the filters of the views, but its watermark does, so that windows
-- close when a topic falls silent. While a topic has records to read, its own watermark is the
-- older one and counts, so a replay is not disturbed.
CREATE TEMPORARY TABLE ticks (
  n INT,
  happened AS CURRENT_TIMESTAMP,
  WATERMARK FOR happened AS happened - ${lateness}
) WITH (
  'connector' = 'datagen', 'rows-per-second' = '1', 'fields.n.min' = '1', 'fields.n.max' = '2'
);

CREATE TEMPORARY TABLE analytics_topic (
  record_key STRING,
  statistic STRING,
  headers MAP<STRING, BYTES> METADATA
) WITH (
  ${kafka},
  'topic' = '${prefix}analytics',
  'key.format' = 'raw', 'key.fields' = 'record_key',
  'value.format' = 'raw', 'value.fields-include' = 'EXCEPT_KEY',
  'sink.delivery-guarantee' = 'exactly-once',
  'sink.transactional-id-prefix' = '${prefix}windows',
  'sink.transaction-naming-strategy' = 'pooling',
  'properties.transaction.timeout.ms' = '${transaction_timeout_ms}'
);
