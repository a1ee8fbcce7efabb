-- name: projects
-- An organisation's projects, or the one of this name, with how many live keys each has that open more than an
-- endpoint.
select project.id, project.name, project.created_at, project.limits::text as limits,
       count(key.id) filter (where key.revoked_at is null and key.endpoint_id is null and not key.playground) as keys
from access.project left join access.api_key as key on key.project_id = project.id
where project.organisation_id = $1 and (project.name = $2 or $2::text is null)
group by project.id order by project.name

-- name: create
insert into access.project (organisation_id, name) values ($1, $2)

-- name: rename
update access.project set name = $2 where id = $1
