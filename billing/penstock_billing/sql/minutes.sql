-- name: due
-- Intervals with time that somebody pays for and that is not charged yet, up to a moment.
select id
from billing.running_interval
where organisation_id is not null
  and (stopped_at is null or accrued_until < stopped_at)
  and accrued_until < least($1::timestamptz, coalesce(stopped_at, case when holder is null then $1 else seen_at end))
order by id

-- name: lock
-- One who charges an interval at a time; how far it may be charged is told by the row as it is then.
select
  *,
  least($2::timestamptz, coalesce(stopped_at, case when holder is null then $2 else seen_at end)) as chargeable_until
from billing.running_interval
where id = $1
for update

-- name: charge
insert into billing.minute_charge (
  interval_id, since, until, organisation_id, project_id, minute_price_version, minutes, cost_nano_usd,
  ledger_transaction_id
)
select $1, part.since, part.until, $2, $3, part.version, part.minutes, part.cost_nano_usd,
       case when part.cost_nano_usd <> 0 then $4::bigint end
from unnest($5::timestamptz[], $6::timestamptz[], $7::bigint[], $8::bigint[], $9::bigint[])
  as part (since, until, version, minutes, cost_nano_usd)

-- name: move
-- In the same transaction as the charges before it.
update billing.running_interval set accrued_until = $2 where id = $1

-- name: wallet
-- Who pays for a project: its own wallet, or its organisation's, or nobody's, which is postpaid.
select project_id, funding
from billing.wallet
where organisation_id = $1 and project_id in (0, $2)
order by project_id desc
limit 1

-- name: lock_accounts
-- The credit of a wallet and the revenue it becomes, locked in key order as everyone does, made when missing.
insert into billing.account as account (organisation_id, project_id, kind, posted_nano_usd)
select organisation_id, project_id, kind, 0
from (values ($1::bigint, 0::bigint, 'revenue'), ($1, $2, 'prepaid'), ($1, $2, 'promotional'))
  as side (organisation_id, project_id, kind)
order by 1, 2, 3
on conflict (organisation_id, project_id, kind) do update set posted_nano_usd = account.posted_nano_usd
returning kind, posted_nano_usd

-- name: by_interval
-- What an organisation was charged in a period, per interval and price.
select
  minute_charge.interval_id, running_interval.kind, running_interval.subject, running_interval.priced_as,
  running_interval.model, running_interval.endpoint, minute_charge.project_id,
  minute_charge.minute_price_version, price.nano_usd_per_minute,
  sum(minute_charge.minutes)::bigint as minutes, sum(minute_charge.cost_nano_usd)::bigint as cost_nano_usd
from billing.minute_charge
join billing.running_interval on running_interval.id = interval_id
join billing.minute_price_version as price on price.id = minute_price_version
where minute_charge.organisation_id = $1 and minute_charge.since >= $2 and minute_charge.since < $3
group by 1, 2, 3, 4, 5, 6, 7, 8, 9
order by 1, 8
