-- name: limit_waiting
-- Shippers queue behind us while we wait for one of them: better try again later than make all of them wait.
set local lock_timeout = '2s'

-- name: stop_shippers
-- Whoever ships holds it shared from before it reads the marks until its commit: so between the marks that we
-- read and those that we set, no event is added to a minute and missed in its hour.
select pg_advisory_xact_lock(7306001203)

-- name: marks
-- How far hours and days are summed up; in the order of the names, so that both are there.
select
  (select rolled_until from billing.roll_up_mark where level = 'hour') as hours_until,
  (select rolled_until from billing.roll_up_mark where level = 'day') as days_until,
  statement_timestamp() as now

-- name: next_minute
-- Where summing up goes on behind a gap (weeks of nothing, or the beginning of all); null when nowhere. As below,
-- organisation by organisation: the tables' only index begins with it, and another by time would cost each record.
with recursive organisation as (
  (select organisation_id from billing.usage_minute order by organisation_id limit 1)
  union all
  select (select organisation_id from billing.usage_minute
          where usage_minute.organisation_id > organisation.organisation_id order by 1 limit 1)
  from organisation where organisation_id is not null
)
select min(minute)
from organisation, lateral (
  select minute from billing.usage_minute
  where usage_minute.organisation_id = organisation.organisation_id and minute >= $1
  order by minute limit 1
) as first

-- name: close_hours
-- Hours [$1, $2) from their minutes; nobody has added to them before, as their mark was not behind them.
with recursive organisation as (
  (select organisation_id from billing.usage_minute order by organisation_id limit 1)
  union all
  select (select organisation_id from billing.usage_minute
          where usage_minute.organisation_id > organisation.organisation_id order by 1 limit 1)
  from organisation where organisation_id is not null
)
insert into billing.usage_hour (
  organisation_id, hour, project_id, key_id, model, price_version, outcome, endpoint,
  requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms, documents,
  cost_nano_usd
)
select
  used.organisation_id, date_trunc('hour', minute, 'UTC'), project_id, key_id, model, price_version, outcome, endpoint,
  sum(requests), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens),
  sum(images), sum(audio_ms), sum(documents), sum(cost_nano_usd)
from organisation join billing.usage_minute as used on used.organisation_id = organisation.organisation_id
where minute >= $1 and minute < $2
group by 1, 2, 3, 4, 5, 6, 7, 8

-- name: close_earned
-- What all tenants together paid in hours [$1, $2), all of which are closed: by model, and by organisation.
with recursive organisation as (
  (select organisation_id from billing.usage_hour order by organisation_id limit 1)
  union all
  select (select organisation_id from billing.usage_hour
          where usage_hour.organisation_id > organisation.organisation_id order by 1 limit 1)
  from organisation where organisation_id is not null
)
insert into billing.earned_hour (hour, model, organisation_id, requests, tokens, cost_nano_usd)
select hour, model, used.organisation_id, sum(requests), sum(input_tokens + output_tokens), sum(cost_nano_usd)
from organisation join billing.usage_hour as used on used.organisation_id = organisation.organisation_id
where hour >= $1 and hour < $2
group by grouping sets ((hour, model), (hour, used.organisation_id))

-- name: close_days
-- Days [$1, $2) from their hours, all of which are closed.
with recursive organisation as (
  (select organisation_id from billing.usage_hour order by organisation_id limit 1)
  union all
  select (select organisation_id from billing.usage_hour
          where usage_hour.organisation_id > organisation.organisation_id order by 1 limit 1)
  from organisation where organisation_id is not null
)
insert into billing.usage_day (
  organisation_id, day, project_id, key_id, model, price_version, outcome, endpoint,
  requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms, documents,
  cost_nano_usd
)
select
  used.organisation_id, date_trunc('day', hour, 'UTC'), project_id, key_id, model, price_version, outcome, endpoint,
  sum(requests), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens),
  sum(images), sum(audio_ms), sum(documents), sum(cost_nano_usd)
from organisation join billing.usage_hour as used on used.organisation_id = organisation.organisation_id
where hour >= $1 and hour < $2
group by 1, 2, 3, 4, 5, 6, 7, 8

-- name: move_mark
-- In the transaction that summed up what lies before it.
update billing.roll_up_mark set rolled_until = $2 where level = $1
