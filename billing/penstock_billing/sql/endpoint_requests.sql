-- name: in_order
-- The planner takes a part of a window for a handful of rows, and would read a busy one whole to sort it.
set local enable_bitmapscan = off;
set local enable_sort = off

-- name: sampled
-- The latest answered requests of each part of a window, at most $6 of each: index probes, however many there are.
-- $3 the window's beginning, $4 how long a part is, $5 how many parts; what ended before $7 is another endpoint's.
select begins, streamed, first_token_us, duration_us
from (select $3::timestamptz + part * $4::interval as begins from generate_series(0, $5::int - 1) as part) as parts
cross join lateral (
  select streamed, first_token_us, duration_us
  from billing.usage_event
  where organisation_id = $1 and endpoint = $2 and endpoint <> ''
    and ended_at >= greatest(begins, $7::timestamptz) and ended_at < begins + $4::interval and outcome = 'done'
    -- Once more as constants: days outside of the window are not planned for.
    and ended_at >= $3 and ended_at < $3 + $4::interval * $5::int
  order by ended_at desc
  limit $6
) as event

-- name: failed
-- How the latest requests ended that were not answered whole, at most $5 of them.
select outcome, status, count(*) as requests, max(ended_at) as latest, min(ended_at) as earliest
from (
  select outcome, status, ended_at
  from billing.usage_event
  where organisation_id = $1 and endpoint = $2 and ended_at >= $3 and ended_at < $4 and outcome <> 'done'
  order by ended_at desc
  limit $5
) as event
group by outcome, status
order by requests desc, outcome, status
