-- name: revenue
-- What was charged in [$1, $2) over all organisations, by organisation and model; $1 begins a UTC day.
-- Closed days, then closed hours, then minutes; events are never read.
with mark as (
  select
    coalesce((select rolled_until from billing.roll_up_mark where level = 'day'), '-infinity') as days_until,
    coalesce((select rolled_until from billing.roll_up_mark where level = 'hour'), '-infinity') as hours_until
), used as (
  select organisation_id, model, requests, input_tokens, output_tokens, cost_nano_usd
  from mark join billing.usage_day on day >= $1 and day < least($2, days_until)
  union all
  select organisation_id, model, requests, input_tokens, output_tokens, cost_nano_usd
  from mark join billing.usage_hour on hour >= greatest($1, days_until) and hour < least($2, hours_until)
  union all
  select organisation_id, model, requests, input_tokens, output_tokens, cost_nano_usd
  from mark join billing.usage_minute on minute >= greatest($1, days_until, hours_until) and minute < $2
)
select organisation_id, model, sum(requests)::bigint as requests, sum(input_tokens + output_tokens)::bigint as tokens,
       sum(cost_nano_usd)::bigint as cost_nano_usd
from used
group by organisation_id, model
order by cost_nano_usd desc, organisation_id, model

-- name: own_instances
-- The installation's own engines that ran within [$1, $2): nobody is charged for them.
select model, priced_as,
       greatest(started_at, $1) as began_at,
       least(coalesce(stopped_at, seen_at), $2) as ended_at
from billing.running_interval
where organisation_id is null and kind = 'instance' and started_at < $2
  and coalesce(stopped_at, 'infinity') > $1 and coalesce(stopped_at, seen_at) > $1
order by model, priced_as, started_at
