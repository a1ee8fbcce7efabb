-- name: unbalanced_transactions
-- The entries of a transaction sum to zero; one without entries has no sum.
select booked.ref as what, sum(entry.amount_nano_usd) as found, 0 as expected
from billing.ledger_transaction as booked
left join billing.entry on entry.transaction_id = booked.id
group by booked.id
having sum(entry.amount_nano_usd) is distinct from 0

-- name: wrong_balances
-- An account's balance is the sum of its entries.
select
  'account ' || account.id || ' (organisation ' || organisation_id || ', project ' || project_id || ', ' || kind || ')'
    as what,
  posted_nano_usd as found,
  coalesce(sum(entry.amount_nano_usd), 0) as expected
from billing.account
left join billing.entry on entry.account_id = account.id
group by account.id
having posted_nano_usd <> coalesce(sum(entry.amount_nano_usd), 0)

-- name: wrong_roll_ups
-- A roll-up row is the sum of its minute's events, every number of it; shown as text, the sums side by side.
-- Days whose events are in a file are for the next query.
with filed as (
  select day from billing.archive where detached_at is not null and restored_at is null
), event as (
  select
    organisation_id, date_trunc('minute', ended_at) as minute, project_id, key_id, model, price_version,
    outcome, endpoint,
    row(count(*), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens),
        sum(images), sum(audio_ms), sum(documents), sum(cost_nano_usd))::text as sums
  from billing.usage_event
  where ended_at >= coalesce($1::timestamptz, '-infinity') and ended_at < coalesce($2::timestamptz, 'infinity')
    and (ended_at at time zone 'UTC')::date not in (select day from filed)
  group by 1, 2, 3, 4, 5, 6, 7, 8
), roll_up as (
  select
    organisation_id, minute, project_id, key_id, model, price_version, outcome, endpoint,
    row(requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms, documents,
        cost_nano_usd)::text as sums
  from billing.usage_minute
  where minute >= coalesce($1::timestamptz, '-infinity') and minute < coalesce($2::timestamptz, 'infinity')
    and (minute at time zone 'UTC')::date not in (select day from filed)
)
select
  'roll-up of organisation ' || organisation_id || ', ' || minute || ', ' || model || ', key ' || key_id as what,
  roll_up.sums as found,
  event.sums as expected,
  organisation_id, minute, project_id, key_id, model, price_version, outcome, endpoint
from event
full join roll_up using (organisation_id, minute, project_id, key_id, model, price_version, outcome, endpoint)
where event.sums is distinct from roll_up.sums

-- name: wrong_archives
-- Of a day whose events are in files, the minutes are the sum of what its files have and what came since; and each
-- file's ids are as many as its events.
with filed as (
  select
    day, day::timestamp at time zone 'UTC' as since, (day + 1)::timestamp at time zone 'UTC' as until,
    sum(events) as events, sum(input_tokens) as input_tokens, sum(cached_tokens) as cached_tokens,
    sum(output_tokens) as output_tokens, sum(reasoning_tokens) as reasoning_tokens, sum(images) as images,
    sum(audio_ms) as audio_ms, sum(documents) as documents, sum(cost_nano_usd) as cost_nano_usd
  from billing.archive where detached_at is not null and restored_at is null
  group by day
)
select 'events of ' || day || ' in files and since' as what, summed.sums as found, counted.sums as expected
from filed, lateral (
  select row(sum(requests), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens),
             sum(images), sum(audio_ms), sum(documents), sum(cost_nano_usd))::text as sums
  from billing.usage_minute where minute >= since and minute < until
) as counted, lateral (
  select row(filed.events + count(*), filed.input_tokens + coalesce(sum(event.input_tokens), 0),
             filed.cached_tokens + coalesce(sum(event.cached_tokens), 0),
             filed.output_tokens + coalesce(sum(event.output_tokens), 0),
             filed.reasoning_tokens + coalesce(sum(event.reasoning_tokens), 0),
             filed.images + coalesce(sum(event.images), 0), filed.audio_ms + coalesce(sum(event.audio_ms), 0),
             filed.documents + coalesce(sum(event.documents), 0),
             filed.cost_nano_usd + coalesce(sum(event.cost_nano_usd), 0))::text as sums
  from billing.usage_event as event where ended_at >= since and ended_at < until
) as summed
where summed.sums is distinct from counted.sums
union all
select 'ids of ' || file, coalesce(ids, 0)::text, events::text
from billing.archive
left join (select day, part, sum(cardinality(event_ids)) as ids from billing.archived_events group by day, part) as noted
  using (day, part)
where detached_at is not null and restored_at is null and coalesce(ids, 0) <> events

-- name: wrong_hours
-- An hour before the mark is the sum of its minutes.
with summed as (
  select
    organisation_id, date_trunc('hour', minute, 'UTC') as hour, project_id, key_id, model, price_version, outcome,
    endpoint,
    row(sum(requests), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens),
        sum(images), sum(audio_ms), sum(documents), sum(cost_nano_usd))::text as sums
  from billing.usage_minute
  where minute < (select rolled_until from billing.roll_up_mark where level = 'hour')
    and minute >= coalesce($1::timestamptz, '-infinity') and minute < coalesce($2::timestamptz, 'infinity')
  group by 1, 2, 3, 4, 5, 6, 7, 8
), kept as (
  select
    organisation_id, hour, project_id, key_id, model, price_version, outcome, endpoint,
    row(requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms, documents,
        cost_nano_usd)::text as sums
  from billing.usage_hour
  where hour >= coalesce($1::timestamptz, '-infinity') and hour < coalesce($2::timestamptz, 'infinity')
)
select
  'hour of organisation ' || organisation_id || ', ' || hour || ', ' || model || ', key ' || key_id as what,
  kept.sums as found,
  summed.sums as expected
from summed
full join kept using (organisation_id, hour, project_id, key_id, model, price_version, outcome, endpoint)
where summed.sums is distinct from kept.sums

-- name: wrong_earned
-- What was earned in an hour before the mark is the sum of all tenants' minutes, by model and by organisation.
with summed as (
  select
    hour, model, organisation_id,
    row(sum(requests), sum(tokens), sum(cost_nano_usd))::text as sums
  from (
    select date_trunc('hour', minute, 'UTC') as hour, model, organisation_id, requests,
      input_tokens + output_tokens as tokens, cost_nano_usd
    from billing.usage_minute
    where minute < (select rolled_until from billing.roll_up_mark where level = 'hour')
      and minute >= coalesce($1::timestamptz, '-infinity') and minute < coalesce($2::timestamptz, 'infinity')
  ) as used
  group by grouping sets ((hour, model), (hour, organisation_id))
), kept as (
  select hour, model, organisation_id, row(requests, tokens, cost_nano_usd)::text as sums
  from billing.earned_hour
  where hour >= coalesce($1::timestamptz, '-infinity') and hour < coalesce($2::timestamptz, 'infinity')
)
select
  'earned in the hour from ' || coalesce(summed.hour, kept.hour) || coalesce(
    ' with ' || coalesce(summed.model, kept.model),
    ' from organisation ' || coalesce(summed.organisation_id, kept.organisation_id)
  ) as what,
  kept.sums as found,
  summed.sums as expected
from summed
full join kept on summed.hour = kept.hour
  and coalesce(summed.model, '') = coalesce(kept.model, '')
  and coalesce(summed.organisation_id, 0) = coalesce(kept.organisation_id, 0)
where summed.sums is distinct from kept.sums

-- name: wrong_days
-- A day before the mark is the sum of its minutes.
with summed as (
  select
    organisation_id, date_trunc('day', minute, 'UTC') as day, project_id, key_id, model, price_version, outcome,
    endpoint,
    row(sum(requests), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens),
        sum(images), sum(audio_ms), sum(documents), sum(cost_nano_usd))::text as sums
  from billing.usage_minute
  where minute < (select rolled_until from billing.roll_up_mark where level = 'day')
    and minute >= coalesce($1::timestamptz, '-infinity') and minute < coalesce($2::timestamptz, 'infinity')
  group by 1, 2, 3, 4, 5, 6, 7, 8
), kept as (
  select
    organisation_id, day, project_id, key_id, model, price_version, outcome, endpoint,
    row(requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms, documents,
        cost_nano_usd)::text as sums
  from billing.usage_day
  where day >= coalesce($1::timestamptz, '-infinity') and day < coalesce($2::timestamptz, 'infinity')
)
select
  'day of organisation ' || organisation_id || ', ' || day || ', ' || model || ', key ' || key_id as what,
  kept.sums as found,
  summed.sums as expected
from summed
full join kept using (organisation_id, day, project_id, key_id, model, price_version, outcome, endpoint)
where summed.sums is distinct from kept.sums

-- name: wrong_spending
-- What budgets go by is what the roll-up says.
with used as (
  select organisation_id, project_id, key_id, date_trunc('month', minute, 'UTC')::date as month, sum(cost_nano_usd) as cost
  from billing.usage_minute group by 1, 2, 3, 4 having sum(cost_nano_usd) <> 0
)
select
  'spending of key ' || key_id || ' of organisation ' || organisation_id || ' in ' || month as what,
  spend_month.cost_nano_usd as found,
  used.cost as expected
from used
full join billing.spend_month using (organisation_id, project_id, key_id, month)
where used.cost is distinct from spend_month.cost_nano_usd

-- name: wrong_revenue
-- What was earned from an organisation is what its requests and minutes cost.
with used as (
  select organisation_id, sum(cost_nano_usd) as cost
  from (select organisation_id, cost_nano_usd from billing.usage_minute
        union all
        select organisation_id, cost_nano_usd from billing.minute_charge) as charged
  group by 1
), revenue as (
  select organisation_id, -sum(amount_nano_usd) as earned
  from billing.entry join billing.account on account.id = entry.account_id
  where kind = 'revenue'
  group by 1
)
select
  'revenue of organisation ' || organisation_id as what,
  coalesce(earned, 0) as found,
  coalesce(cost, 0) as expected,
  organisation_id
from used full join revenue using (organisation_id)
where coalesce(earned, 0) <> coalesce(cost, 0)

-- name: wrong_bookings
-- A ledger transaction for usage books the events that name it, organisation by organisation. Those that
-- reach into a day whose events are in a file only cannot be told apart any more. In a window, those of its
-- transactions whose whole batch is in it are compared.
with event as (
  select ledger_transaction_id, organisation_id, sum(cost_nano_usd) as cost
  from billing.usage_event
  left join billing.ledger_transaction on ledger_transaction.id = ledger_transaction_id
  where cost_nano_usd <> 0
    and ended_at >= coalesce($1::timestamptz, '-infinity') and ended_at < coalesce($2::timestamptz, 'infinity')
    and (ledger_transaction.id is null
         or (period_start >= coalesce($1, '-infinity') and period_end < coalesce($2, 'infinity')))
  group by 1, 2
), booked as (
  select transaction_id as ledger_transaction_id, organisation_id, -sum(amount_nano_usd) as earned
  from billing.entry
  join billing.account on account.id = entry.account_id
  join billing.ledger_transaction on ledger_transaction.id = entry.transaction_id
  where account.kind = 'revenue' and ledger_transaction.kind = 'usage'
    and period_start >= coalesce($1, '-infinity') and period_end < coalesce($2, 'infinity')
  group by 1, 2
)
select
  'transaction ' || coalesce(ledger_transaction_id::text, 'none') || ', organisation ' || organisation_id as what,
  earned as found,
  cost as expected,
  ledger_transaction_id, organisation_id
from event
full join booked using (ledger_transaction_id, organisation_id)
left join billing.ledger_transaction on ledger_transaction.id = ledger_transaction_id
where earned is distinct from cost
  and not exists (select from billing.archive where detached_at is not null and restored_at is null
                  and period_start < (day + 1)::timestamp at time zone 'UTC'
                  and period_end >= day::timestamp at time zone 'UTC')

-- name: wrong_leases
-- The lease account of a wallet is what its open leases have left.
with left_over as (
  select organisation_id, project_id, sum(granted_nano_usd - settled_nano_usd) as amount
  from billing.lease where released_at is null group by 1, 2
), account as (
  select organisation_id, project_id, -posted_nano_usd as amount from billing.account where kind = 'lease'
)
select
  'leases of organisation ' || organisation_id || ', project ' || project_id as what,
  coalesce(account.amount, 0) as found,
  coalesce(left_over.amount, 0) as expected
from left_over full join account using (organisation_id, project_id)
where coalesce(account.amount, 0) <> coalesce(left_over.amount, 0)

-- name: wrong_minutes
-- A charge for minutes is their number times the price of its version.
select
  'minutes of interval ' || interval_id || ' from ' || since as what,
  minute_charge.cost_nano_usd as found,
  minutes * nano_usd_per_minute as expected
from billing.minute_charge
join billing.minute_price_version on minute_price_version.id = minute_price_version
where minute_charge.cost_nano_usd <> minutes * nano_usd_per_minute

-- name: wrong_costs
-- Re-rating an event with its price version, which is one of its model, gives the cost it was charged. An adapter
-- (base:name@version) has its base's prices.
select
  'request ' || request_id || ' of organisation ' || organisation_id as what,
  cost_nano_usd as found,
  rerated as expected,
  request_id
from billing.usage_event
left join billing.price_version
  on price_version.id = usage_event.price_version and price_version.model = split_part(usage_event.model, ':', 1)
cross join lateral (select billing.cost_nano_usd(
  outcome, input_tokens, cached_tokens, output_tokens, images, audio_ms, documents, batch,
  input_pico_usd, cached_input_pico_usd, output_pico_usd, image_pico_usd, audio_second_pico_usd,
  document_pico_usd, batch_discount_ppm) as rerated) as again
where cost_nano_usd is distinct from rerated
  and ended_at >= coalesce($1::timestamptz, '-infinity') and ended_at < coalesce($2::timestamptz, 'infinity')
