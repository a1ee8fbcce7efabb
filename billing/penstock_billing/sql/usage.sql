-- name: by_day_and_model
-- Days and sums from the roll-up; tokens of our own failures are not the customer's.
select
  (minute at time zone 'UTC')::date as day,
  model,
  coalesce(sum(requests) filter (where billable), 0)::bigint as requests,
  coalesce(sum(requests) filter (where not billable), 0)::bigint as failed_requests,
  coalesce(sum(input_tokens) filter (where billable), 0)::bigint as input_tokens,
  coalesce(sum(cached_tokens) filter (where billable), 0)::bigint as cached_tokens,
  coalesce(sum(output_tokens) filter (where billable), 0)::bigint as output_tokens,
  coalesce(sum(reasoning_tokens) filter (where billable), 0)::bigint as reasoning_tokens,
  sum(cost_nano_usd)::bigint as cost_nano_usd
from billing.usage_minute, lateral (select outcome in ('done', 'client_gone', 'credit_ended', 'recovered') as billable) as kind
where organisation_id = $1
  and minute >= $2 and minute < $3
  and ($4::bigint is null or project_id = $4)
group by 1, 2
order by 1, 2

-- name: totals
-- The same, as one row.
select
  coalesce(sum(requests) filter (where billable), 0)::bigint as requests,
  coalesce(sum(requests) filter (where not billable), 0)::bigint as failed_requests,
  coalesce(sum(input_tokens) filter (where billable), 0)::bigint as input_tokens,
  coalesce(sum(cached_tokens) filter (where billable), 0)::bigint as cached_tokens,
  coalesce(sum(output_tokens) filter (where billable), 0)::bigint as output_tokens,
  coalesce(sum(reasoning_tokens) filter (where billable), 0)::bigint as reasoning_tokens,
  coalesce(sum(cost_nano_usd), 0)::bigint as cost_nano_usd
from billing.usage_minute, lateral (select outcome in ('done', 'client_gone', 'credit_ended', 'recovered') as billable) as kind
where organisation_id = $1
  and minute >= $2 and minute < $3
  and ($4::bigint is null or project_id = $4)

-- name: request
-- By our id; where there is none, the latest that the client called so. Two index probes per partition.
select *
from (
  select true as ours, event.*
  from billing.usage_event as event
  where organisation_id = $1 and request_id = $2
  union all
  select false, event.*
  from billing.usage_event as event
  where organisation_id = $1 and client_request_id = $2
) as found
order by ours desc, ended_at desc, event_id desc
limit 1
