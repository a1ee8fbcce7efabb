-- name: last_used
-- When each key was last used: to the minute since the last closed hour, to the hour for two days, to the day for
-- a year. Few rows of each roll-up are read, and no event.
with mark as (
  select greatest((select rolled_until from billing.roll_up_mark where level = 'hour'), now() - interval '2 days') as since
), used as (
  select key_id, max(day) as at from billing.usage_day
  where organisation_id = $1 and day >= now() - interval '366 days' group by key_id
  union all
  select key_id, max(hour) from billing.usage_hour
  where organisation_id = $1 and hour >= now() - interval '2 days' group by key_id
  union all
  select key_id, max(minute) from mark join billing.usage_minute on organisation_id = $1 and minute >= since - interval '1 hour'
  group by key_id
)
select key_id, max(at) as at from used group by key_id

-- name: spent
-- What keys cost in one UTC month, exactly as budgets have it.
select project_id, key_id, sum(cost_nano_usd)::bigint as cost_nano_usd
from billing.spend_month where organisation_id = $1 and month = $2
group by project_id, key_id
