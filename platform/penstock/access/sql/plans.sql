-- name: plans
-- Every plan, or the one of this name.
select plan.name, plan.weight, plan.limits::text as limits, count(organisation.id) as organisations
from access.plan left join access.organisation on organisation.plan = plan.name
where plan.name = $1 or $1::text is null
group by plan.name order by plan.name

-- name: of_organisation
select plan from access.organisation where id = $1

-- name: members
select name from access.organisation where plan = $1 order by name

-- name: create
insert into access.plan (name, weight, limits) values ($1, $2, $3) on conflict (name) do nothing returning name

-- name: change
update access.plan set weight = $2, limits = $3 where name = $1

-- name: assign
update access.organisation set plan = $2 where id = $1

-- name: lock
select 1 from access.plan where name = $1 for update

-- name: remove
delete from access.plan where name = $1

-- name: touch_organisation
-- Gateways read keys that changed: what belongs to a key changes with it.
update access.api_key set changed_at = now() where organisation_id = $1 and revoked_at is null

-- name: touch_plan
update access.api_key as key set changed_at = now()
from access.organisation
where organisation.id = key.organisation_id and organisation.plan = $1 and key.revoked_at is null
