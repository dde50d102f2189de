WITH seconds AS (
  SELECT {second} AS window_no, COUNT(*) AS calls FROM {table} GROUP BY 1
),
minutes AS (
  SELECT {whole:FLOOR(window_no / 60e0)} AS window_no, SUM(calls) AS calls FROM seconds GROUP BY 1
),
hours AS (
  SELECT {whole:FLOOR(window_no / 60e0)} AS window_no, SUM(calls) AS calls FROM minutes GROUP BY 1
),
every_window AS (
  SELECT 1 AS window_s, window_no, calls FROM seconds
  UNION ALL SELECT 60 AS window_s, window_no, calls FROM minutes
  UNION ALL SELECT 3600 AS window_s, window_no, calls FROM hours
)
SELECT window_s,
       calls AS calls_in_window,
       COUNT(*) AS windows,
       MIN(window_no) AS first_window,
       MAX(window_no) AS last_window
FROM every_window
GROUP BY window_s, calls
ORDER BY window_s, calls
