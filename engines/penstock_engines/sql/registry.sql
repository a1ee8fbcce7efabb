-- name: put
insert into engines.replica (id, model, state, socket, batch_max, reason, controller)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (id) do update set
  state = excluded.state, socket = excluded.socket, batch_max = excluded.batch_max,
  reason = excluded.reason, controller = excluded.controller, changed_at = now()

-- name: remove
delete from engines.replica where id = $1

-- name: clear_others
delete from engines.replica where controller <> $1

-- name: listed
select id, model, state, socket, batch_max, reason from engines.replica order by id
