-- Intervals say who vouches for them, what ran, and keep their past.

alter table billing.running_interval
  add column model    text not null default '',
  add column endpoint text not null default '',
  add column holder   text,
  add constraint running_interval_owner check (organisation_id > 0);
comment on column billing.running_interval.model is 'What ran, where a model did';
comment on column billing.running_interval.endpoint is 'The endpoint that an instance ran for; empty for none';
comment on column billing.running_interval.holder is
  'The start of a controller that vouches for it by seen_at; null for what is ready until somebody says it stopped';
comment on column billing.running_interval.seen_at is
  'Last proof that it was ready; of what has a holder nothing is charged beyond it';

drop index billing.running_interval_due;
create index running_interval_due on billing.running_interval (id)
  where organisation_id is not null and (stopped_at is null or accrued_until < stopped_at);
create index running_interval_by_subject on billing.running_interval (kind, subject, stopped_at);
create index running_interval_by_organisation on billing.running_interval (organisation_id, started_at);

create function billing.guard_interval() returns trigger language plpgsql as $$
begin
  if tg_op <> 'UPDATE' then
    raise exception 'intervals are kept: % is refused', lower(tg_op) using errcode = 'restrict_violation';
  end if;
  if (new.id, new.organisation_id, new.project_id, new.kind, new.subject, new.priced_as, new.started_at, new.model,
      new.endpoint, new.holder)
     is distinct from
     (old.id, old.organisation_id, old.project_id, old.kind, old.subject, old.priced_as, old.started_at, old.model,
      old.endpoint, old.holder)
     or new.seen_at < old.seen_at
     or new.accrued_until < old.accrued_until
     or (old.stopped_at is not null and new.stopped_at is distinct from old.stopped_at) then
    raise exception 'interval %: only seen_at and accrued_until move, forward, and it stops once', old.id
      using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
comment on function billing.guard_interval() is 'Trigger: what an interval says of the past stays.';
create trigger guard before update or delete on billing.running_interval
  for each row execute function billing.guard_interval();
create trigger guard_whole before truncate on billing.running_interval
  for each statement execute function billing.guard_interval();
