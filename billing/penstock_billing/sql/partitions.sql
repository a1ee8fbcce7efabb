-- name: limit_waiting
-- Attaching waits for readers of the default partition, and everyone after us would wait behind us.
set local lock_timeout = '2s'

-- name: lock
-- One process at a time makes partitions, and the others wait until they are there: an event on its way to
-- the default partition while its day's is attached is refused, and its whole batch tried again.
select pg_advisory_xact_lock(7306001202)

-- name: ensure
-- Yesterday too: what the last minutes before midnight used may be shipped after it.
select count(*) filter (where billing.ensure_usage_partition(day::date))
from generate_series(
  (now() at time zone 'UTC')::date - 1, (now() at time zone 'UTC')::date + $1::integer, interval '1 day'
) as day

-- name: strayed
-- Events whose day has no partition; more than none means that nobody makes partitions.
select count(*) from billing.usage_event_default

-- name: strayed_days
-- The oldest days whose events have come without a partition.
select distinct (ended_at at time zone 'UTC')::date as day from billing.usage_event_default order by 1 limit $1

-- name: ensure_day
select billing.ensure_usage_partition($1)
