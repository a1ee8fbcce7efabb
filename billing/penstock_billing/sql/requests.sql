-- name: by_our_id
-- One index probe per partition of a window that the id's own time gives: few, however long events are kept.
select event.*
from billing.usage_event as event
where organisation_id = $1 and request_id = $2 and ended_at >= $3 and ended_at < $4
  and ($5::text[] is null or key_id = any ($5))
order by ended_at desc
limit 1

-- name: by_client_id
-- The latest that the client called so, in a window.
select event.*
from billing.usage_event as event
where organisation_id = $1 and client_request_id = $2 and ended_at >= $3 and ended_at < $4
  and ($5::text[] is null or key_id = any ($5))
order by ended_at desc, event_id desc
limit 1

-- name: latest
-- Requests of a window, the latest first, from behind ($4, $5) on; the rest are filters, null where there is none.
select event.*
from billing.usage_event as event
where organisation_id = $1 and ended_at >= $2 and ended_at < $3 and (ended_at, event_id) < ($4, $5)
  and ($6::text[] is null or key_id = any ($6))
  and ($7::text is null or key_id = $7)
  and ($8::text is null or model = $8)
  and ($9::text is null or endpoint = $9)
  and ($10::bigint is null or project_id = $10)
  and ($11::text[] is null or outcome = any ($11))
order by ended_at desc, event_id desc
limit $12

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
