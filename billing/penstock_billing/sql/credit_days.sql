-- name: note
-- Credit at the end of each day in [$1, $2) on which it changed: what it is now, less what moved it since.
with moved as (
  select
    account.organisation_id, account.project_id, (booked.booked_at at time zone 'UTC')::date as day,
    -sum(entry.amount_nano_usd) as credit_nano_usd
  from billing.ledger_transaction as booked
  join billing.entry on entry.transaction_id = booked.id
  join billing.account on account.id = entry.account_id
  where booked.booked_at >= $1::date::timestamp at time zone 'UTC'
    and account.kind in ('prepaid', 'promotional', 'lease')
  group by 1, 2, 3
), now_has as (
  select organisation_id, project_id, -sum(posted_nano_usd) as credit_nano_usd
  from billing.account
  where kind in ('prepaid', 'promotional', 'lease')
  group by 1, 2
)
insert into billing.credit_day (organisation_id, project_id, day, credit_nano_usd)
select
  moved.organisation_id, moved.project_id, moved.day,
  now_has.credit_nano_usd - coalesce((
    select sum(later.credit_nano_usd) from moved as later
    where (later.organisation_id, later.project_id) = (moved.organisation_id, moved.project_id) and later.day > moved.day
  ), 0)
from moved join now_has using (organisation_id, project_id)
where moved.day >= $1 and moved.day < $2
on conflict on constraint credit_day_identity do nothing

-- name: move_mark
update billing.credit_day_mark set day = $1 where day < $1

-- name: mark
-- Days before it are noted.
select day from billing.credit_day_mark

-- name: between
-- A wallet's days from $3 on, and the last one before, which says what it began with.
(select day, credit_nano_usd from billing.credit_day
 where organisation_id = $1 and project_id = $2 and day < $3 order by day desc limit 1)
union all
(select day, credit_nano_usd from billing.credit_day
 where organisation_id = $1 and project_id = $2 and day >= $3 order by day)
