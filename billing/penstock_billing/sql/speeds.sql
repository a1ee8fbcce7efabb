-- name: lately
-- Of every model since a UTC day, as `quantiles` wants it: of each measure how many requests were in which step of its
-- scale. Sums of a few hundred rows per model and day; events are never read.
with summed as (
  select model, measure, bucket, sum(requests) as requests
  from billing.speed_day
  where day >= $1
  group by model, measure, bucket
)

-- name: lately_of
-- The same of the models $2: a query of its own, so that it is found by their names.
with summed as (
  select model, measure, bucket, sum(requests) as requests
  from billing.speed_day
  where model = any ($2::text[]) and day >= $1
  group by model, measure, bucket
)

-- name: quantiles
-- What follows both.
, running as (
  select model, measure, bucket,
    sum(requests) over (partition by model, measure order by bucket) as until,
    sum(requests) over (partition by model, measure) as total
  from summed
)
select model, measure, total::bigint as requests,
  min(bucket) filter (where until >= total * 0.1) as p10,
  min(bucket) filter (where until >= total * 0.5) as p50,
  min(bucket) filter (where until >= total * 0.9) as p90
from running
group by model, measure, total

-- name: by_day
-- The same of the models $1 in the UTC days [$2, $3), each day apart.
with summed as (
  select model, day, measure, bucket, sum(requests) as requests
  from billing.speed_day
  where model = any ($1::text[]) and day >= $2 and day < $3
  group by model, day, measure, bucket
), running as (
  select model, day, measure, bucket,
    sum(requests) over (partition by model, day, measure order by bucket) as until,
    sum(requests) over (partition by model, day, measure) as total
  from summed
)
select model, day, measure, total::bigint as requests,
  min(bucket) filter (where until >= total * 0.1) as p10,
  min(bucket) filter (where until >= total * 0.5) as p50,
  min(bucket) filter (where until >= total * 0.9) as p90
from running
group by model, day, measure, total

-- name: merge
-- Days that are over need no rows to be spread: fewer are read faster. In one statement, so that no count is lost.
with spread as (
  delete from billing.speed_day where day < $1 and shard <> 0 returning model, day, measure, bucket, requests
)
insert into billing.speed_day as total (model, day, measure, bucket, shard, requests)
select model, day, measure, bucket, 0, sum(requests) from spread group by 1, 2, 3, 4 order by 1, 2, 3, 4
on conflict (model, day, measure, bucket, shard) do update set requests = total.requests + excluded.requests

-- name: forget
delete from billing.speed_day where day < $1
