-- name: between
-- Usage in [$2, $3), whole minutes, from as few rows as will do: closed days where a whole one lies in the window
-- and no finer steps are asked for, then closed hours, and minutes at the edges and behind the marks. One statement
-- sees one moment, so nothing is missed or counted twice while hours are closed. Events are never read.
-- $4 the step: total, day, hour or minute; $5 what else to tell apart; $6..$9 which project, key, model, endpoint;
-- $10 the most rows that are wanted; $11 the names of what is told apart, where all else is to be one: null.
with mark as (
  select
    (select rolled_until from billing.roll_up_mark where level = 'hour') as hours_until,
    (select rolled_until from billing.roll_up_mark where level = 'day') as days_until
), closed as (
  select
    date_trunc('hour', $2::timestamptz + interval '1 hour' - interval '1 microsecond', 'UTC') as hours_from,
    least(date_trunc('hour', $3::timestamptz, 'UTC'), hours_until) as hours_to,
    date_trunc('day', $2::timestamptz + interval '1 day' - interval '1 microsecond', 'UTC') as days_from,
    least(date_trunc('day', $3::timestamptz, 'UTC'), days_until) as days_to
  from mark
), window_of as (
  -- Days within hours within the window; where none are closed the inner window is empty, at its outer one's end.
  select
    hours_from,
    case when $4 <> 'minute' and hours_from < hours_to then hours_to else hours_from end as hours_to,
    case when $4 in ('total', 'day') and days_from < days_to then days_from else hours_from end as days_from,
    case when $4 in ('total', 'day') and days_from < days_to then days_to else hours_from end as days_to
  from closed
), used as (
  select day as at, project_id, key_id, model, endpoint, price_version, outcome, requests, input_tokens, cached_tokens,
    output_tokens, reasoning_tokens, images, audio_ms, documents, cost_nano_usd
  from window_of join billing.usage_day on organisation_id = $1 and day >= days_from and day < days_to
  union all
  select hour, project_id, key_id, model, endpoint, price_version, outcome, requests, input_tokens, cached_tokens,
    output_tokens, reasoning_tokens, images, audio_ms, documents, cost_nano_usd
  from window_of join billing.usage_hour on organisation_id = $1 and hour >= hours_from and hour < days_from
  union all
  select hour, project_id, key_id, model, endpoint, price_version, outcome, requests, input_tokens, cached_tokens,
    output_tokens, reasoning_tokens, images, audio_ms, documents, cost_nano_usd
  from window_of join billing.usage_hour on organisation_id = $1 and hour >= days_to and hour < hours_to
  union all
  select minute, project_id, key_id, model, endpoint, price_version, outcome, requests, input_tokens, cached_tokens,
    output_tokens, reasoning_tokens, images, audio_ms, documents, cost_nano_usd
  from window_of join billing.usage_minute
    on organisation_id = $1 and minute >= $2 and minute < least(hours_from, $3)
  union all
  select minute, project_id, key_id, model, endpoint, price_version, outcome, requests, input_tokens, cached_tokens,
    output_tokens, reasoning_tokens, images, audio_ms, documents, cost_nano_usd
  from window_of join billing.usage_minute
    on organisation_id = $1 and minute >= hours_to and minute < $3
)
select
  case when $4 <> 'total' then date_trunc($4, at, 'UTC') end as at,
  case when 'model' = any($5::text[]) and ($11::text[] is null or model = any($11)) then model end as model,
  case when 'project' = any($5::text[]) and ($11::text[] is null or project_id::text = any($11)) then project_id end
    as project_id,
  case when 'key' = any($5::text[]) and ($11::text[] is null or key_id = any($11)) then key_id end as key_id,
  case when 'endpoint' = any($5::text[]) and ($11::text[] is null or endpoint = any($11)) then endpoint end as endpoint,
  case when 'price_version' = any($5::text[]) then price_version end as price_version,
  coalesce(sum(requests) filter (where billable), 0)::bigint as requests,
  coalesce(sum(requests) filter (where not billable), 0)::bigint as failed_requests,
  coalesce(sum(input_tokens) filter (where billable), 0)::bigint as input_tokens,
  coalesce(sum(cached_tokens) filter (where billable), 0)::bigint as cached_tokens,
  coalesce(sum(output_tokens) filter (where billable), 0)::bigint as output_tokens,
  coalesce(sum(reasoning_tokens) filter (where billable), 0)::bigint as reasoning_tokens,
  coalesce(sum(images) filter (where billable), 0)::bigint as images,
  coalesce(sum(audio_ms) filter (where billable), 0)::bigint as audio_ms,
  coalesce(sum(documents) filter (where billable), 0)::bigint as documents,
  sum(cost_nano_usd)::bigint as cost_nano_usd
from used, lateral (select outcome in ('done', 'client_gone', 'credit_ended', 'recovered') as billable) as kind
where ($6::bigint is null or project_id = $6)
  and ($7::text is null or key_id = $7)
  and ($8::text is null or model = $8)
  and ($9::text is null or endpoint = $9)
group by 1, 2, 3, 4, 5, 6
order by 1, 2, 3, 4, 5, 6
limit $10

-- name: freshness
-- The moment of reading, and the latest minute in which the organisation used anything: one index probe.
select
  statement_timestamp() as as_of,
  (select minute from billing.usage_minute where organisation_id = $1 order by minute desc limit 1) as latest_minute
