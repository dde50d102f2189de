WITH ordered AS (
  SELECT {request} AS visible_request,
         {seconds} AS at_s,
         CASE WHEN {succeeded} THEN 1 ELSE 0 END AS succeeded,
         ROW_NUMBER() OVER (PARTITION BY {request} ORDER BY {time} DESC) AS from_last
  FROM {table}
  WHERE {request} IS NOT NULL
),
outcomes AS (
  SELECT visible_request,
         MIN(at_s) AS first_s,
         COUNT(*) AS calls,
         MAX(CASE WHEN from_last = 1 THEN succeeded ELSE 0 END) AS succeeded
  FROM ordered
  GROUP BY visible_request
)
SELECT {whole:FLOOR(first_s / 3600e0)} * 3600 AS hour_start_s,
       COUNT(*) AS visible_requests,
       SUM(calls) AS calls_of_them,
       SUM(succeeded) AS successful_outputs
FROM outcomes
GROUP BY 1
ORDER BY 1
