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

-- name: overlapping
-- Charges of an organisation that reach into [$2, $3), for what follows; one that begins before is found through its
-- interval, whatever its length.
with overlapping as (
  select interval_id, since, until, project_id, minute_price_version
  from billing.minute_charge
  where organisation_id = $1 and since >= $2 and since < $3
  union all
  select latest.*
  from billing.running_interval as run, lateral (
    select interval_id, since, until, project_id, minute_price_version
    from billing.minute_charge as charge
    where charge.interval_id = run.id and charge.since < $2
    order by charge.since desc
    limit 1
  ) as latest
  where run.organisation_id = $1 and run.started_at < $2 and (run.stopped_at is null or run.stopped_at > $2)
    and latest.until > $2
)

-- name: by_interval
-- What was charged in [$2, $3), per interval and price. A charge that reaches across an edge counts by the minutes that
-- begin inside.
, inside as (
  select
    interval_id, project_id, minute_price_version,
    sum(ceil(extract(epoch from least(until, $3)) / 60) - ceil(extract(epoch from greatest(since, $2)) / 60))::bigint
      as minutes
  from overlapping
  group by 1, 2, 3
)
select
  interval_id, running_interval.kind, running_interval.subject, priced_as, model, endpoint, inside.project_id, minute_price_version,
  price.nano_usd_per_minute, minutes, minutes * price.nano_usd_per_minute as cost_nano_usd
from inside
join billing.running_interval on running_interval.id = interval_id
join billing.minute_price_version as price on price.id = minute_price_version
where minutes > 0
order by 1, 8

-- name: by_step
-- The same, not by interval but by day, hour or minute ($4; total is one line), and by what ran. $5..$7: only this
-- project, model, endpoint.
, inside as (
  select interval_id, project_id, minute_price_version, greatest(since, $2) as since, least(until, $3) as until
  from overlapping
), pieces as (
  -- One piece for each step that a charge touches, nearly always one.
  select
    interval_id, project_id, minute_price_version, step as at,
    ceil(extract(epoch from least(until, step + width)) / 60) - ceil(extract(epoch from greatest(since, step)) / 60)
      as minutes
  from (values (case $4 when 'minute' then interval '1 minute' when 'hour' then interval '1 hour'
                        else interval '24 hours' end)) as chosen (width),
    inside,
    generate_series(
      date_trunc(case $4 when 'total' then 'day' else $4 end, since, 'UTC'), until - interval '1 microsecond', width
    ) as step
)
select
  case when $4 <> 'total' then at end as at, run.kind, priced_as, model, endpoint, pieces.project_id,
  price.nano_usd_per_minute,
  sum(minutes)::bigint as minutes, sum(minutes * price.nano_usd_per_minute)::bigint as cost_nano_usd
from pieces
join billing.running_interval as run on run.id = interval_id
join billing.minute_price_version as price on price.id = minute_price_version
where minutes > 0
  and ($5::bigint is null or pieces.project_id = $5)
  and ($6::text is null or model = $6)
  and ($7::text is null or endpoint = $7)
group by 1, 2, 3, 4, 5, 6, 7
order by 1, 2, 3, 4, 5, 6, 7
