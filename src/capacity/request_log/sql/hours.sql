WITH minutes AS (
  SELECT {whole:FLOOR({seconds} / 60e0)} AS minute_no,
         COUNT(*) AS calls,
         SUM(CASE WHEN {succeeded} THEN 0 ELSE 1 END) AS failed
  FROM {table}
  GROUP BY 1
),
edges AS (
  SELECT MIN(minute_no) AS first_minute, MAX(minute_no) AS last_minute FROM minutes
),
hourly AS (
  SELECT {whole:FLOOR(minute_no / 60e0)} AS hour_no, minute_no, calls, failed FROM minutes
),
ranked AS (
  SELECT hour_no, calls, failed,
         ROW_NUMBER() OVER (PARTITION BY hour_no ORDER BY calls) AS place,
         COUNT(*) OVER (PARTITION BY hour_no) AS occupied,
         CASE WHEN last_minute < hour_no * 60 + 59 THEN last_minute ELSE hour_no * 60 + 59 END
           - CASE WHEN first_minute > hour_no * 60 THEN first_minute ELSE hour_no * 60 END + 1 AS all_minutes
  FROM hourly CROSS JOIN edges
),
placed AS (
  SELECT hour_no, calls, failed, place, occupied, all_minutes - occupied AS empty_minutes,
         0.95 * (all_minutes - 1) AS all_rank, 0.95 * (occupied - 1) AS occupied_rank
  FROM ranked
)
SELECT hour_no * 3600 AS hour_start_s,
       SUM(calls) AS requests,
       SUM(failed) AS failed,
       SUM(CASE WHEN place + empty_minutes = FLOOR(all_rank) + 1 THEN calls * (1 - (all_rank - FLOOR(all_rank)))
                WHEN place + empty_minutes = FLOOR(all_rank) + 2 THEN calls * (all_rank - FLOOR(all_rank))
                ELSE 0 END) AS rpm_p95,
       SUM(CASE WHEN place = FLOOR(occupied_rank) + 1 THEN calls * (1 - (occupied_rank - FLOOR(occupied_rank)))
                WHEN place = FLOOR(occupied_rank) + 2 THEN calls * (occupied_rank - FLOOR(occupied_rank))
                ELSE 0 END) AS rpm_p95_of_occupied_minutes,
       MAX(calls) AS rpm_peak
FROM placed
GROUP BY hour_no
ORDER BY hour_no
