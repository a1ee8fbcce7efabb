-- name: by_our_id
-- One index probe per partition of a window that the id's own time gives: few, however long events are kept.
-- Found first and put in order then: a plan made for any id would read in the order of time until it meets it.
with found as materialized (
  select event.*
  from billing.usage_event as event
  where organisation_id = $1 and request_id = $2 and ended_at >= $3 and ended_at < $4
    and ($5::text[] is null or key_id = any ($5))
)
select * from found order by ended_at desc limit 1

-- name: by_client_id
-- The latest that the client called so, in a window; found first here, too.
with found as materialized (
  select event.*
  from billing.usage_event as event
  where organisation_id = $1 and client_request_id = $2 and ended_at >= $3 and ended_at < $4
    and ($5::text[] is null or key_id = any ($5))
)
select * from found order by ended_at desc, event_id desc limit 1

-- name: limit_time
-- Nobody waits longer for a search. Planned anew each time: which index serves depends on what is asked for.
set local statement_timeout = '2s';
set local plan_cache_mode = force_custom_plan

-- name: wanted
-- Requests of a window; the rest are filters, null where there is none. What follows gives the order.
select event.*
from billing.usage_event as event
where organisation_id = $1 and ended_at >= $2 and ended_at < $3
  and ($4::text[] is null or key_id = any ($4))
  and ($5::text is null or request_id = $5 or client_request_id = $5)
  and ($6::text is null or key_id = $6)
  and ($7::text is null or model = $7)
  and ($8::text is null or endpoint = $8)
  and ($9::bigint is null or project_id = $9)
  and ($10::text[] is null or outcome = any ($10))
  and ($11::smallint is null or status between $11 and $12)
  -- What was answered whole had status 200: of the others there is an index.
  and ($11::smallint is null or 200 between $11 and $12 or outcome <> 'done')
  and ($13::bigint is null or duration_us > $13)

-- name: before_place
  and (ended_at, event_id) < ($14, $15)

-- name: after_place
  and (ended_at, event_id) > ($14, $15)

-- name: latest_first
order by ended_at desc, event_id desc
limit $16

-- name: earliest_first
order by ended_at, event_id
limit $16

-- name: in_hour
  and ended_at >= begins and ended_at < begins + interval '1 hour'

-- name: hours
-- Hours of [$2, $3) that have such requests, from roll-ups: the latest (or, where $10, the earliest) in which there
-- are $11 of them. An hour of which only a part is wanted ($12 is in it), or whose events are in a file, may have none.
with mark as (
  select rolled_until from billing.roll_up_mark where level = 'hour'
), used as (
  select hour, key_id, model, endpoint, project_id, outcome, requests
  from billing.usage_hour
  where organisation_id = $1 and hour > $2::timestamptz - interval '1 hour'
    and hour < least($3::timestamptz, (select rolled_until from mark))
  union all
  select date_trunc('hour', minute, 'UTC'), key_id, model, endpoint, project_id, outcome, requests
  from billing.usage_minute
  where organisation_id = $1 and minute > $2::timestamptz - interval '1 minute'
    and minute >= (select rolled_until from mark) and minute < $3
), counted as (
  select
    hour,
    case
      when hour >= $2 and hour <= $3 - interval '1 hour' and hour <> date_trunc('hour', $12::timestamptz, 'UTC') and not exists (
        select from billing.archive
        where day = (hour at time zone 'UTC')::date and detached_at is not null and restored_at is null
      ) then sum(requests) else 0
    end as requests
  from used
  where ($4::text[] is null or key_id = any ($4))
    and ($5::text is null or key_id = $5)
    and ($6::text is null or model = $6)
    and ($7::text is null or endpoint = $7)
    and ($8::bigint is null or project_id = $8)
    and ($9::text[] is null or outcome = any ($9))
  group by hour
), running as (
  select hour, requests, sum(requests) over (order by case when $10 then hour end, hour desc) as until
  from counted
)
select array_agg(hour) from running where until - requests < $11

-- name: price
select * from billing.price_version where id = $1

-- name: refunds
select transaction_id from billing.refund where organisation_id = $1 and request_id = $2 order by 1

-- name: filed_days
-- Days of a window whose events are in a file only.
select distinct day from billing.archive
where detached_at is not null and restored_at is null
  and day >= ($1::timestamptz at time zone 'UTC')::date and day <= ($2::timestamptz at time zone 'UTC')::date
order by day

-- name: ever_asked
-- Whether any other key than these ever asked for something: one index probe where one did.
select exists (select from billing.spend_month where organisation_id = $1 and key_id <> all($2::text[]))
  or exists (select from billing.usage_minute where organisation_id = $1 and key_id <> all($2::text[]))
