-- name: put
insert into engines.replica (id, model, state, socket, batch_max, reason, controller, version)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (id) do update set
  state = excluded.state, socket = excluded.socket, batch_max = excluded.batch_max,
  reason = excluded.reason, controller = excluded.controller, version = excluded.version,
  changed_at = case when replica.state = excluded.state then replica.changed_at else now() end

-- name: remove
delete from engines.replica where id = $1

-- name: clear_others
delete from engines.replica where controller <> $1

-- name: listed
select id, model, state, socket, batch_max, reason, version, changed_at from engines.replica order by id
