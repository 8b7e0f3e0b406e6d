-- Job 7: how people of different groups, as labels on feedback name them, are served by each
-- version; safety labels are counted the same way.

CREATE TEMPORARY VIEW label_facts AS
SELECT model_version, label, group_name, rating, happened
FROM feedback_matched CROSS JOIN UNNEST(labels) AS named (label, group_name);

CREATE TEMPORARY VIEW label_groups AS
SELECT
  'label_groups/' || label || '/' || group_name || '/' || model_version AS record_key,
  'label_groups' AS `name`,
  window_start,
  window_end,
  JSON_OBJECT(KEY 'label' VALUE label, KEY 'group' VALUE group_name, KEY 'model_version' VALUE model_version) AS labels,
  JSON_OBJECT(
    KEY 'feedback' VALUE COUNT(*),
    KEY 'reward_mean' VALUE AVG(rating),
    KEY 'positive_share' VALUE AVG(CASE WHEN rating > 0 THEN 1e0 WHEN rating <= 0 THEN 0e0 END)
    ABSENT ON NULL
  ) AS `values`
FROM TUMBLE(TABLE label_facts, DESCRIPTOR(happened), ${window})
GROUP BY window_start, window_end, label, group_name, model_version;
