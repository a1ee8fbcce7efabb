-- name: lock_names
-- One upload at a time in an organisation: its names, numbers and sum of bytes hold together.
select pg_advisory_xact_lock(hashtextextended('adapters of organisation ' || $1::bigint, 0))

-- name: lock_content
-- Nobody removes the files of a content while somebody keeps the same, nor the other way round.
select pg_advisory_xact_lock(hashtextextended('adapter content ' || $1::text, 0))

-- name: add
insert into adapters.adapter (organisation_id, project_id, base_model, name, description, active_version)
values ($1, $2, $3, $4, $5, $6)
returning id

-- name: add_version
insert into adapters.version (adapter_id, number, digest, size_bytes, rank, target_modules)
values ($1, $2, $3, $4, $5, $6)

-- name: last_number
-- Of deleted adapters of the name too: what was billed under a number stays what it was.
select coalesce(max(number), 0) from adapters.version join adapters.adapter on id = adapter_id
where organisation_id = $1 and name = $2

-- name: same_content
select number from adapters.version where adapter_id = $1 and digest = $2

-- name: kept
-- What an organisation has here: adapters, and bytes of all their versions.
select count(distinct id) as adapters, coalesce(sum(size_bytes), 0)::bigint as size_bytes
from adapters.adapter left join adapters.version on adapter_id = id
where organisation_id = $1 and deleted_at is null

-- name: change
update adapters.adapter set
  active_version = coalesce($3, active_version), description = coalesce($4, description), changed_at = now()
where id = $1 and organisation_id = $2 and deleted_at is null

-- name: delete
update adapters.adapter set deleted_at = now(), changed_at = now()
where organisation_id = $1 and name = $2 and deleted_at is null
returning id

-- name: one
select a.*, p.name as project from adapters.adapter a join access.project p on p.id = a.project_id
where a.organisation_id = $1 and a.name = $2 and a.deleted_at is null

-- name: of_organisation
select a.*, p.name as project from adapters.adapter a join access.project p on p.id = a.project_id
where a.organisation_id = $1 and a.deleted_at is null order by a.name

-- name: versions
select number, digest, size_bytes, rank, target_modules, created_at from adapters.version
where adapter_id = $1 order by number

-- name: live
-- Every version that can be called, for those who serve it.
select organisation_id, base_model, name, number, digest, number = active_version as active,
  adapter.created_at
from adapters.adapter join adapters.version on adapter_id = id
where deleted_at is null

-- name: leaving
-- Contents that only deleted adapters have and whose files are still here, with when the last was deleted.
select digest, array_agg(distinct base_model) as base_models, max(deleted_at) as deleted_at
from adapters.version join adapters.adapter on id = adapter_id
group by digest
having bool_and(deleted_at is not null) and not bool_and(removed_at is not null)

-- name: is_known
select exists (select from adapters.version where digest = $1 and removed_at is null)

-- name: is_left
select not exists (
  select from adapters.version join adapters.adapter on id = adapter_id where digest = $1 and deleted_at is null
)

-- name: note_removed
update adapters.version set removed_at = now() where digest = $1 and removed_at is null
