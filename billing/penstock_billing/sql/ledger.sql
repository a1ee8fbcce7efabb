-- name: book_usage
-- One transaction for a batch: each organisation owes more (receivable), and we have earned it (revenue).
-- Accounts are made when first needed, and locked in key order, as everyone does: no deadlocks.
with charge as (
  select * from unnest($5::bigint[], $6::bigint[]) as charge (organisation_id, cost_nano_usd)
), side as (
  select organisation_id, 'receivable' as kind, cost_nano_usd as amount_nano_usd from charge
  union all
  select organisation_id, 'revenue', -cost_nano_usd from charge
), booked as (
  insert into billing.ledger_transaction (id, ref, kind, period_start, period_end)
  values ($1, $2, 'usage', $3, $4)
  returning id
), posted as (
  insert into billing.account as account (organisation_id, kind, posted_nano_usd)
  select organisation_id, kind, amount_nano_usd from side order by organisation_id, kind
  on conflict (organisation_id, kind) do update
    set posted_nano_usd = account.posted_nano_usd + excluded.posted_nano_usd
  returning id, organisation_id, kind
)
insert into billing.entry (transaction_id, account_id, amount_nano_usd)
select booked.id, posted.id, side.amount_nano_usd
from booked, posted join side using (organisation_id, kind)
