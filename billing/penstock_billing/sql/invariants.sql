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
  'account ' || account.id || ' (organisation ' || organisation_id || ', ' || kind || ')' as what,
  posted_nano_usd as found,
  coalesce(sum(entry.amount_nano_usd), 0) as expected
from billing.account
left join billing.entry on entry.account_id = account.id
group by account.id
having posted_nano_usd <> coalesce(sum(entry.amount_nano_usd), 0)

-- name: wrong_roll_ups
-- A roll-up row is the sum of its minute's events, every number of it; shown as text, the sums side by side.
with event as (
  select
    organisation_id, date_trunc('minute', ended_at) as minute, project_id, key_id, model, price_version, outcome,
    row(count(*), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens),
        sum(cost_nano_usd))::text as sums
  from billing.usage_event
  group by 1, 2, 3, 4, 5, 6, 7
), roll_up as (
  select
    organisation_id, minute, project_id, key_id, model, price_version, outcome,
    row(requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_nano_usd)::text as sums
  from billing.usage_minute
)
select
  'roll-up of organisation ' || organisation_id || ', ' || minute || ', ' || model || ', key ' || key_id as what,
  roll_up.sums as found,
  event.sums as expected
from event
full join roll_up using (organisation_id, minute, project_id, key_id, model, price_version, outcome)
where event.sums is distinct from roll_up.sums

-- name: wrong_revenue
-- What was earned from an organisation is what its events cost.
with event as (
  select organisation_id, sum(cost_nano_usd) as cost from billing.usage_event group by 1
), revenue as (
  select organisation_id, -sum(amount_nano_usd) as earned
  from billing.entry join billing.account on account.id = entry.account_id
  where kind = 'revenue'
  group by 1
)
select
  'revenue of organisation ' || organisation_id as what,
  coalesce(earned, 0) as found,
  coalesce(cost, 0) as expected
from event full join revenue using (organisation_id)
where coalesce(earned, 0) <> coalesce(cost, 0)

-- name: wrong_bookings
-- A ledger transaction for usage books the events that name it, organisation by organisation.
with event as (
  select ledger_transaction_id, organisation_id, sum(cost_nano_usd) as cost
  from billing.usage_event
  where cost_nano_usd <> 0
  group by 1, 2
), booked as (
  select transaction_id as ledger_transaction_id, organisation_id, -sum(amount_nano_usd) as earned
  from billing.entry
  join billing.account on account.id = entry.account_id
  join billing.ledger_transaction on ledger_transaction.id = entry.transaction_id
  where account.kind = 'revenue' and ledger_transaction.kind = 'usage'
  group by 1, 2
)
select
  'transaction ' || coalesce(ledger_transaction_id::text, 'none') || ', organisation ' || organisation_id as what,
  earned as found,
  cost as expected
from event full join booked using (ledger_transaction_id, organisation_id)
where earned is distinct from cost

-- name: wrong_costs
-- Re-rating an event with its price version gives the cost it was charged.
select
  'request ' || request_id || ' of organisation ' || organisation_id as what,
  cost_nano_usd as found,
  billing.cost_nano_usd(
    outcome, input_tokens, cached_tokens, output_tokens,
    input_pico_usd, cached_input_pico_usd, output_pico_usd
  ) as expected
from billing.usage_event
left join billing.price_version on price_version.id = usage_event.price_version
where cost_nano_usd is distinct from billing.cost_nano_usd(
  outcome, input_tokens, cached_tokens, output_tokens,
  input_pico_usd, cached_input_pico_usd, output_pico_usd
)
