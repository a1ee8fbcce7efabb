-- name: earned
-- What was charged in [$1, $2) over all organisations, by model or (where $3) by organisation; $1 begins an hour.
-- Closed hours, then minutes; neither events nor tenants' hours are read.
with recursive mark as (
  select least(rolled_until, date_trunc('hour', $2::timestamptz, 'UTC')) as closed_until
  from billing.roll_up_mark where level = 'hour'
), organisation as (
  -- The minutes' only index begins with it.
  (select organisation_id from billing.usage_minute order by organisation_id limit 1)
  union all
  select (select organisation_id from billing.usage_minute
          where usage_minute.organisation_id > organisation.organisation_id order by 1 limit 1)
  from organisation where organisation_id is not null
), used as (
  select model, organisation_id, requests, tokens, cost_nano_usd
  from mark join billing.earned_hour on hour >= $1 and hour < closed_until
  where (model is null) = $3
  union all
  select case when not $3 then model end, case when $3 then organisation_id end, requests, tokens, cost_nano_usd
  from organisation cross join lateral (
    select model, requests, input_tokens + output_tokens as tokens, cost_nano_usd
    from billing.usage_minute as total
    where total.organisation_id = organisation.organisation_id
      and minute >= (select greatest($1, closed_until) from mark) and minute < $2
    -- Kept as it is: an index probe per tenant, however many minutes the planner expects behind the mark.
    offset 0
  ) as open_minutes
)
select model, organisation_id, sum(requests)::bigint as requests, sum(tokens)::bigint as tokens,
  sum(cost_nano_usd)::bigint as cost_nano_usd
from used
group by model, organisation_id
order by cost_nano_usd desc, model, organisation_id

-- name: own_instances
-- The installation's own engines that ran within [$1, $2): nobody is charged for them.
select model, priced_as,
       greatest(started_at, $1) as began_at,
       least(coalesce(stopped_at, seen_at), $2) as ended_at
from billing.running_interval
where organisation_id is null and kind = 'instance' and started_at < $2
  and coalesce(stopped_at, 'infinity') > $1 and coalesce(stopped_at, seen_at) > $1
order by model, priced_as, started_at
