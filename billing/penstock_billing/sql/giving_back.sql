-- name: made_good
-- What all that makes good some transactions, and makes good what made them good, has moved; by account.
with recursive good as (
  select id from billing.ledger_transaction where corrects = any($1::bigint[])
  union
  select booked.id from billing.ledger_transaction as booked join good on booked.corrects = good.id
)
select account.project_id, account.kind, sum(entry.amount_nano_usd)::bigint as amount_nano_usd
from good
join billing.entry on entry.transaction_id = good.id
join billing.account on account.id = entry.account_id
where account.organisation_id = $2
group by 1, 2

-- name: refunds_of_request
-- The transactions that gave back the cost of a request.
select transaction_id from billing.refund where organisation_id = $1 and request_id = $2

-- name: add_refund
insert into billing.refund (transaction_id, organisation_id, request_id) values ($1, $2, $3)

-- name: request
-- By our id, or else the latest that the client called so; found first, and put in order then.
with found as materialized (
  select true as ours, event.* from billing.usage_event as event where organisation_id = $1 and request_id = $2
  union all
  select false, event.* from billing.usage_event as event where organisation_id = $1 and client_request_id = $2
)
select request_id, funding, wallet_project_id, cost_nano_usd, ledger_transaction_id
from found
order by ours desc, ended_at desc, event_id desc
limit 1

-- name: balance
select coalesce(sum(posted_nano_usd), 0)::bigint from billing.account
where organisation_id = $1 and ($2::bigint is null or project_id = $2) and kind = $3

-- name: funding
-- How a wallet pays now.
select funding from billing.wallet where organisation_id = $1 and project_id = $2
