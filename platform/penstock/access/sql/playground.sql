-- name: find
-- The live key of a project's playground, with everything that a principal is made of.
select key.id, key.organisation_id, key.project_id, weight, endpoint_id, key.role,
       key.limits::text as key_limits, project.limits::text as project_limits, plan.limits::text as plan_limits
from access.api_key as key
join access.project on project.id = key.project_id
join access.organisation on organisation.id = key.organisation_id
join access.plan on plan.name = organisation.plan
where project.organisation_id = $1 and project.name = $2 and key.playground and key.revoked_at is null

-- name: make
-- Two requests at once make one.
insert into access.api_key (id, organisation_id, project_id, name, digest, last_four, role, playground)
select $3, organisation_id, id, 'Playground', $4, '', 'viewer', true
from access.project where organisation_id = $1 and name = $2
on conflict (project_id) where playground and revoked_at is null do nothing
