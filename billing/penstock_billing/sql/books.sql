-- name: balances
-- Every account with its balance, of one organisation or of all.
select organisation_id, project_id, kind, posted_nano_usd
from billing.account
where $1::bigint is null or organisation_id = $1
order by organisation_id, project_id, kind

-- name: transactions_of_accounts
-- The latest transactions before a number that have an entry in one of the accounts asked for, newest first.
-- Numbers and booking times rise together but for transactions that ran side by side, so times become a range
-- of numbers with room to spare, and are compared exactly within it. Each account gives its latest by index; the
-- inner offset keeps it so.
with bounds as materialized (
  select
    coalesce((select id - 10000 from billing.ledger_transaction
              where booked_at >= $3 order by booked_at limit 1), 9223372036854775807) as since,
    least($5, coalesce((select id + 10000 from billing.ledger_transaction
                        where booked_at < $4 order by booked_at desc limit 1), 0)) as before
), latest as (
  select distinct entry.transaction_id as id
  from billing.account as asked, lateral (
    select given.transaction_id
    from (
      select transaction_id from billing.entry
      where account_id = asked.id
        and transaction_id >= (select since from bounds) and transaction_id < (select before from bounds)
      order by transaction_id desc
    ) as given, lateral (
      select from billing.ledger_transaction as booked
      where booked.id = given.transaction_id
        and booked.booked_at >= $3 and booked.booked_at < $4 and booked.kind = any($8::text[])
      offset 0
    ) as fits
    order by given.transaction_id desc
    limit $6
  ) as entry
  where ($1::bigint is null or asked.organisation_id = $1)
    and ($2::text is null or asked.kind = $2)
    and ($7::bigint is null or asked.project_id = $7)
  order by 1 desc
  limit $6
)
select
  booked.id, booked.ref, booked.kind, booked.period_start, booked.period_end, booked.booked_at, booked.note,
  booked.actor, booked.corrects
from latest join billing.ledger_transaction as booked using (id)
order by booked.id desc

-- name: transactions
-- The same, where nearly every transaction fits: one after the other, looking at the entries of each.
with bounds as materialized (
  select
    coalesce((select id - 10000 from billing.ledger_transaction
              where booked_at >= $3 order by booked_at limit 1), 9223372036854775807) as since,
    least($5, coalesce((select id + 10000 from billing.ledger_transaction
                        where booked_at < $4 order by booked_at desc limit 1), 0)) as before
)
select
  booked.id, booked.ref, booked.kind, booked.period_start, booked.period_end, booked.booked_at, booked.note,
  booked.actor, booked.corrects
from billing.ledger_transaction as booked
cross join lateral (
  select from billing.entry join billing.account on account.id = entry.account_id
  where entry.transaction_id = booked.id
    and ($1::bigint is null or account.organisation_id = $1)
    and ($2::text is null or account.kind = $2)
    and ($7::bigint is null or account.project_id = $7)
  limit 1
) as asked
where booked.id >= (select since from bounds) and booked.id < (select before from bounds)
  and booked.booked_at >= $3 and booked.booked_at < $4 and booked.kind = any($8::text[])
order by booked.id desc
limit $6

-- name: transactions_of_people
-- The same, of kinds that are few: by their own index.
with bounds as materialized (
  select
    coalesce((select id - 10000 from billing.ledger_transaction
              where booked_at >= $3 order by booked_at limit 1), 9223372036854775807) as since,
    least($5, coalesce((select id + 10000 from billing.ledger_transaction
                        where booked_at < $4 order by booked_at desc limit 1), 0)) as before
)
select
  booked.id, booked.ref, booked.kind, booked.period_start, booked.period_end, booked.booked_at, booked.note,
  booked.actor, booked.corrects
from billing.ledger_transaction as booked
cross join lateral (
  select from billing.entry join billing.account on account.id = entry.account_id
  where entry.transaction_id = booked.id
    and ($1::bigint is null or account.organisation_id = $1)
    and ($2::text is null or account.kind = $2)
    and ($7::bigint is null or account.project_id = $7)
  limit 1
) as asked
where booked.id >= (select since from bounds) and booked.id < (select before from bounds)
  and booked.booked_at >= $3 and booked.booked_at < $4 and booked.kind = any($8::text[])
  and booked.kind not in ('usage', 'minutes', 'lease_grant', 'lease_release')
order by booked.id desc
limit $6

-- name: transaction
select id, ref, kind, period_start, period_end, booked_at, note, actor, corrects
from billing.ledger_transaction where id = $1

-- name: entries
-- Of some transactions, and of one organisation where one is named: a batch of usage has many.
select entry.transaction_id, account.organisation_id, account.project_id, account.kind, entry.amount_nano_usd
from billing.entry join billing.account on account.id = entry.account_id
where entry.transaction_id = any($1::bigint[]) and ($2::bigint is null or account.organisation_id = $2)
order by entry.transaction_id desc, account.organisation_id, account.project_id, entry.amount_nano_usd desc, account.kind

-- name: corrected_by
select id from billing.ledger_transaction where corrects = $1 order by id

-- name: charged_wallets
-- The requests that a usage transaction books, wallet by wallet. The period finds the partitions.
select
  event.organisation_id, wallet_project_id as project_id, funding,
  count(*) as requests, sum(cost_nano_usd)::bigint as cost_nano_usd
from billing.usage_event as event
where event.ledger_transaction_id = $1
  and event.organisation_id = any($2::bigint[])
  and event.ended_at >= $3 and event.ended_at <= $4
group by 1, 2, 3
order by 1, 2, 3

-- name: charged_requests
-- The requests themselves, in the order in which they ended.
select
  event.event_id, event.ended_at, event.organisation_id, event.wallet_project_id, event.project_id, event.key_id,
  event.request_id, event.model, event.funding, event.input_tokens, event.output_tokens, event.cost_nano_usd
from billing.usage_event as event
where event.ledger_transaction_id = $1
  and event.organisation_id = any($2::bigint[])
  and event.ended_at >= $3 and event.ended_at <= $4
  and (event.ended_at, event.event_id) > ($5, $6)
order by event.ended_at, event.event_id
limit $7

-- name: charged_minutes
select interval_id, kind, subject, priced_as, since, until, charge.organisation_id, charge.project_id, minutes,
  cost_nano_usd
from billing.minute_charge as charge join billing.running_interval as run on run.id = charge.interval_id
where charge.ledger_transaction_id = $1 and charge.organisation_id = any($2::bigint[])
order by since, interval_id
limit $3

-- name: archived_days
-- Days of a period whose events are in a file only.
select distinct day from billing.archive
where detached_at is not null and restored_at is null
  and day >= ($1::timestamptz at time zone 'UTC')::date and day <= ($2::timestamptz at time zone 'UTC')::date
order by day
