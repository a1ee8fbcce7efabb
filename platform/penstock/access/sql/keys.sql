-- name: ensure_organisation
-- Find or make an organisation by name.
insert into access.organisation (name) values ($1)
on conflict on constraint organisation_name_unique do update set name = excluded.name
returning id

-- name: ensure_project
-- Find or make a project of an organisation by name.
insert into access.project (organisation_id, name) values ($1, $2)
on conflict on constraint project_name_unique do update set name = excluded.name
returning id

-- name: find_organisation
select id from access.organisation where name = $1

-- name: find_project
select id from access.project where organisation_id = $1 and name = $2

-- name: organisation_names
select id, name from access.organisation where id = any($1::bigint[])

-- name: project_names
select id, name from access.project where id = any($1::bigint[])

-- name: insert_key
insert into access.api_key (id, organisation_id, project_id, name, digest, last_four, role, limits)
values ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: list_keys
-- Every key of one organisation, newest first.
select key.id, key.name, project.name as project, key.last_four, key.role, key.created_at, key.revoked_at
from access.api_key as key join access.project as project on project.id = key.project_id
where key.organisation_id = $1 and key.endpoint_id is null and not key.playground
order by key.created_at desc, key.id

-- name: find_key
select key.id, key.name, project.name as project, key.last_four, key.role, key.created_at, key.revoked_at
from access.api_key as key join access.project as project on project.id = key.project_id
where key.organisation_id = $1 and key.id = $2 and key.endpoint_id is null and not key.playground

-- name: lock_key
select id from access.api_key where organisation_id = $1 and id = $2 for update

-- name: change_key
update access.api_key set name = $3, role = $4, changed_at = now() where organisation_id = $1 and id = $2

-- name: revoke_key
-- Revoking twice keeps the first time.
update access.api_key set revoked_at = coalesce(revoked_at, now()), changed_at = now()
where organisation_id = $1 and id = $2
returning id

-- name: changed_keys
-- Keys that changed since a time, and the database's own clock, for the next question.
select key.id, key.organisation_id, key.project_id, digest, revoked_at is not null as revoked, weight, endpoint_id, key.role,
       key.limits::text as key_limits, project.limits::text as project_limits, plan.limits::text as plan_limits
from access.api_key as key
join access.project on project.id = key.project_id
join access.organisation on organisation.id = key.organisation_id
join access.plan on plan.name = organisation.plan
where key.changed_at > $1

-- name: one_key
select key.id, key.organisation_id, key.project_id, digest, revoked_at is not null as revoked, weight, endpoint_id, key.role,
       key.limits::text as key_limits, project.limits::text as project_limits, plan.limits::text as plan_limits
from access.api_key as key
join access.project on project.id = key.project_id
join access.organisation on organisation.id = key.organisation_id
join access.plan on plan.name = organisation.plan
where key.id = $1

-- name: clock
select now()
