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
-- Where summing up goes on behind a gap (weeks of nothing, or the beginning of all); null when nowhere.
select min(minute) from billing.usage_minute where minute >= $1

-- name: close_hours
-- Hours [$1, $2) from their minutes; nobody has added to them before, as their mark was not behind them.
insert into billing.usage_hour (
  organisation_id, hour, project_id, key_id, model, price_version, outcome, endpoint,
  requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms, documents,
  cost_nano_usd
)
select
  organisation_id, date_trunc('hour', minute, 'UTC'), project_id, key_id, model, price_version, outcome, endpoint,
  sum(requests), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens),
  sum(images), sum(audio_ms), sum(documents), sum(cost_nano_usd)
from billing.usage_minute
where minute >= $1 and minute < $2
group by 1, 2, 3, 4, 5, 6, 7, 8

-- name: close_days
-- Days [$1, $2) from their hours, all of which are closed.
insert into billing.usage_day (
  organisation_id, day, project_id, key_id, model, price_version, outcome, endpoint,
  requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms, documents,
  cost_nano_usd
)
select
  organisation_id, date_trunc('day', hour, 'UTC'), project_id, key_id, model, price_version, outcome, endpoint,
  sum(requests), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens),
  sum(images), sum(audio_ms), sum(documents), sum(cost_nano_usd)
from billing.usage_hour
where hour >= $1 and hour < $2
group by 1, 2, 3, 4, 5, 6, 7, 8

-- name: move_mark
-- In the transaction that summed up what lies before it.
update billing.roll_up_mark set rolled_until = $2 where level = $1
