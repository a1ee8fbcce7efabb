-- name: limit_key
update access.api_key set limits = $3, changed_at = now() where organisation_id = $1 and id = $2 returning id

-- name: limit_project
update access.project set limits = $2 where id = $1

-- name: touch_project
-- Gateways read keys that changed: what belongs to a key changes with it.
update access.api_key set changed_at = now() where project_id = $1

-- name: touch_organisation
update access.api_key set changed_at = now() where organisation_id = $1

-- name: touch_plan
update access.api_key as key set changed_at = now()
from access.organisation where organisation.id = key.organisation_id and organisation.plan = $1

-- name: plans
select plan.name, plan.weight, count(organisation.id) as organisations
from access.plan left join access.organisation on organisation.plan = plan.name
group by plan.name order by plan.name

-- name: set_plan
insert into access.plan (name, weight) values ($1, $2) on conflict (name) do update set weight = excluded.weight

-- name: assign_plan
update access.organisation set plan = $2 where id = $1
