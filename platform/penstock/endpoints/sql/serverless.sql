-- name: create
insert into endpoints.serverless (organisation_id, project_id, name, model, description, tags, limits)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (organisation_id, name) where deleted_at is null do nothing
returning id

-- name: change
update endpoints.serverless set description = $3, tags = $4, limits = $5, suspended = $6, changed_at = now(),
  suspended_at = case when $6::text is not null then coalesce(suspended_at, now()) end
where organisation_id = $1 and name = $2 and deleted_at is null
returning id

-- name: delete
update endpoints.serverless set deleted_at = now(), changed_at = now()
where organisation_id = $1 and name = $2 and deleted_at is null
returning id

-- name: one
-- The one that bears a name, or else the last that bore it and is not quite gone.
select e.*, p.name as project from endpoints.serverless e join access.project p on p.id = e.project_id
where e.organisation_id = $1 and e.name = $2 and e.ended_at is null
order by e.deleted_at desc nulls first limit 1

-- name: of_organisation
select e.*, p.name as project from endpoints.serverless e join access.project p on p.id = e.project_id
where e.organisation_id = $1 and e.ended_at is null order by e.name, e.deleted_at desc nulls first, e.id

-- name: live
-- Every endpoint that there is, for those who route by it and those who charge for it.
select id, organisation_id, project_id, name, model, limits::text as limits, suspended, suspended_at
from endpoints.serverless where deleted_at is null

-- name: names
select name from endpoints.serverless where organisation_id = $1 and deleted_at is null

-- name: borne_before
-- Names of endpoints that an earlier one, which was deleted since a moment, bore too.
select distinct e.name from endpoints.serverless e
join endpoints.serverless before
  on before.organisation_id = e.organisation_id and before.name = e.name and before.deleted_at >= $2
where e.organisation_id = $1 and e.deleted_at is null

-- name: keys
select slot, id, last_four, created_at from access.api_key
where endpoint_id = $1 and revoked_at is null order by slot

-- name: key_ids
-- Those that were replaced too.
select id from access.api_key where endpoint_id = $1

-- name: insert_key
insert into access.api_key (id, organisation_id, project_id, name, digest, last_four, endpoint_id, slot)
values ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: revoke_keys
update access.api_key set revoked_at = now(), changed_at = now()
where endpoint_id = $1 and revoked_at is null and (slot = $2 or $2 is null)

-- name: models
select distinct model from endpoints.serverless where deleted_at is null

-- name: note_problem
-- Why a model's endpoints cannot be served, or null.
update endpoints.serverless set problem = $2
where model = $1 and deleted_at is null and problem is distinct from $2::text

-- name: leaving
-- Those that were deleted and whose minutes may not have been ended yet.
select id, deleted_at from endpoints.serverless where deleted_at is not null and ended_at is null

-- name: ended
update endpoints.serverless set ended_at = now() where id = any($1::bigint[]) and ended_at is null
