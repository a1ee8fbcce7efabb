-- name: live
-- Every budget in force, or one organisation's, with what was spent in its period: the month that begins on $1.
select
  budget.id, budget.organisation_id, budget.project_id, budget.key_id, budget.period, budget.limit_nano_usd,
  budget.alert_percents, budget.enforced, budget.created_at,
  billing.spent_nano_usd(
    budget.organisation_id, budget.project_id, budget.key_id, case when budget.period = 'month' then $1::date end
  ) as spent_nano_usd
from billing.budget
where budget.ended_at is null and ($2::bigint is null or budget.organisation_id = $2)
order by budget.organisation_id, budget.project_id nulls first, budget.key_id nulls first, budget.period

-- name: spent
-- What an organisation's requests cost in the month that begins on $2.
select billing.spent_nano_usd($1, null, null, $2::date)

-- name: lock_organisation
-- Changes of one organisation's budgets are made one after the other.
select pg_advisory_xact_lock(7306002, hashint8($1::bigint))

-- name: find
-- The budget in force of a scope and period.
select id, limit_nano_usd, alert_percents, enforced
from billing.budget
where organisation_id = $1 and project_id is not distinct from $2 and key_id is not distinct from $3
  and period = $4 and ended_at is null

-- name: add
insert into billing.budget (organisation_id, project_id, key_id, period, limit_nano_usd, alert_percents, enforced)
values ($1, $2, $3, $4, $5, $6, $7)
returning id

-- name: end
-- What was in force, and its alerts, stay to be looked up.
update billing.budget set ended_at = now(), changed_at = now()
where organisation_id = $1 and id = $2 and ended_at is null
returning id

-- name: raise_alerts
-- Each threshold once per budget and period, whoever looks how often; returns those that were passed just now.
insert into billing.budget_alert (budget_id, period_start, percent, spent_nano_usd)
select id, period_start, percent, spent_nano_usd
from (
  select
    budget.id, due.period_start, unnest(budget.alert_percents) as percent, budget.limit_nano_usd,
    billing.spent_nano_usd(
      budget.organisation_id, budget.project_id, budget.key_id,
      case when budget.period = 'month' then due.period_start end
    ) as spent_nano_usd
  from billing.budget
  cross join lateral (
    select unnest($1::date[]) as period_start where budget.period = 'month'
    union all
    select date '1970-01-01' where budget.period = 'total'
  ) as due
  where budget.ended_at is null
) as spending
where spent_nano_usd > 0 and spent_nano_usd::numeric * 100 >= limit_nano_usd::numeric * percent
order by id, period_start, percent
on conflict (budget_id, period_start, percent) do nothing
returning budget_id, period_start, percent, spent_nano_usd

-- name: alerts
-- What an organisation's budgets raised, latest first.
select alert.budget_id, alert.period_start, alert.percent, alert.spent_nano_usd, alert.raised_at
from billing.budget_alert as alert join billing.budget on budget.id = alert.budget_id
where budget.organisation_id = $1
order by alert.raised_at desc, alert.percent desc
limit $2

-- name: alerted
-- Whose budgets they are.
select id, organisation_id, limit_nano_usd from billing.budget where id = any($1::bigint[])
