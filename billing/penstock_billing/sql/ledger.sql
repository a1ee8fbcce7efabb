-- name: book_usage
-- One transaction for a batch: each wallet pays, and we have earned it (revenue). What is postpaid is owed
-- (receivable); what is prepaid comes out of the lease that its gateway admitted it by, and where that is no
-- longer open, out of the credit itself. Leases and then accounts are locked in key order, as everyone does.
with charge as (
  select *
  from unnest($5::bigint[], $6::text[], $7::bigint[], $8::bigint[])
    as charge (organisation_id, funding, project_id, cost_nano_usd)
), held as (
  select lease.id, lease.organisation_id, lease.project_id, charge.cost_nano_usd
  from billing.lease
  join charge using (organisation_id, project_id)
  where lease.boot_id = $9 and lease.released_at is null and charge.funding = 'prepaid'
  order by lease.id
  for update of lease
), settled as (
  update billing.lease set settled_nano_usd = settled_nano_usd + held.cost_nano_usd
  from held where lease.id = held.id
), side as (
  select
    organisation_id,
    project_id,
    case
      when funding = 'postpaid' then 'receivable'
      when exists (select from held where (held.organisation_id, held.project_id)
                                        = (charge.organisation_id, charge.project_id)) then 'lease'
      else 'prepaid'
    end as kind,
    cost_nano_usd as amount_nano_usd
  from charge
  union all
  select organisation_id, 0, 'revenue', -sum(cost_nano_usd)::bigint from charge group by organisation_id
), booked as (
  insert into billing.ledger_transaction (id, ref, kind, period_start, period_end)
  values ($1, $2, 'usage', $3, $4)
  returning id
), posted as (
  insert into billing.account as account (organisation_id, project_id, kind, posted_nano_usd)
  select organisation_id, project_id, kind, amount_nano_usd from side order by organisation_id, project_id, kind
  on conflict (organisation_id, project_id, kind) do update
    set posted_nano_usd = account.posted_nano_usd + excluded.posted_nano_usd
  returning id, organisation_id, project_id, kind
)
insert into billing.entry (transaction_id, account_id, amount_nano_usd)
select booked.id, posted.id, side.amount_nano_usd
from booked, posted join side using (organisation_id, project_id, kind)

-- name: add_transaction
-- Nothing when the reference was used before.
insert into billing.ledger_transaction (ref, kind, period_start, period_end, note, actor, corrects)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (ref) do nothing
returning id

-- name: post
-- Balances and entries of one transaction, accounts in key order, made when first needed.
with side as (
  select *
  from unnest($2::bigint[], $3::bigint[], $4::text[], $5::bigint[])
    as side (organisation_id, project_id, kind, amount_nano_usd)
), posted as (
  insert into billing.account as account (organisation_id, project_id, kind, posted_nano_usd)
  select organisation_id, project_id, kind, amount_nano_usd from side order by organisation_id, project_id, kind
  on conflict (organisation_id, project_id, kind) do update
    set posted_nano_usd = account.posted_nano_usd + excluded.posted_nano_usd
  returning id, organisation_id, project_id, kind
)
insert into billing.entry (transaction_id, account_id, amount_nano_usd)
select $1, posted.id, side.amount_nano_usd
from posted join side using (organisation_id, project_id, kind)

-- name: find_transaction
-- By its reference, with its entries.
select
  booked.id,
  booked.kind,
  booked.corrects,
  account.organisation_id,
  account.project_id,
  account.kind as account_kind,
  entry.amount_nano_usd
from billing.ledger_transaction as booked
join billing.entry on entry.transaction_id = booked.id
join billing.account on account.id = entry.account_id
where booked.ref = $1
order by account.organisation_id, account.project_id, account.kind
