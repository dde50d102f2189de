WITH calls AS (
  SELECT {seconds} AS at_s, CASE WHEN {succeeded} THEN 1 ELSE 0 END AS succeeded FROM {table}
),
gaps AS (
  SELECT at_s, succeeded, at_s - {before:at_s} OVER (ORDER BY at_s) AS gap_s FROM calls
)
SELECT COUNT(*) AS requests,
       COUNT(*) - SUM(succeeded) AS failed,
       MIN(at_s) AS first_s,
       MAX(at_s) AS last_s,
       AVG(gap_s) AS gap_mean_s,
       AVG(gap_s * gap_s) AS gap_square_mean_s2
FROM gaps
