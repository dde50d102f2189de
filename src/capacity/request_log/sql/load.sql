WITH loaded AS (
  SELECT {load} AS load_from, {latency} AS latency
  FROM {table}
  WHERE {succeeded} AND {concurrent} IS NOT NULL AND {latency} IS NOT NULL
),
ranked AS (
  SELECT load_from, latency,
         ROW_NUMBER() OVER (PARTITION BY load_from ORDER BY latency) AS place,
         0.95 * (COUNT(*) OVER (PARTITION BY load_from) - 1) AS p95_rank
  FROM loaded
)
SELECT load_from,
       COUNT(*) AS calls,
       SUM(CASE WHEN place = FLOOR(p95_rank) + 1 THEN latency * (1 - (p95_rank - FLOOR(p95_rank)))
                WHEN place = FLOOR(p95_rank) + 2 THEN latency * (p95_rank - FLOOR(p95_rank))
                ELSE 0 END) AS latency_p95
FROM ranked
GROUP BY load_from
ORDER BY load_from
