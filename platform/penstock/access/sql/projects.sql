-- name: projects
-- An organisation's projects, with how many live keys each has that open more than an endpoint.
select project.name, project.created_at, project.limits::text as limits,
       count(key.id) filter (where key.revoked_at is null and key.endpoint_id is null) as keys
from access.project left join access.api_key as key on key.project_id = project.id
where project.organisation_id = $1
group by project.id order by project.name
