-- Who changed what, when: written by triggers (room "audit") in the transaction of the change itself.

create table access.audit_entry (
  id              bigint      generated always as identity primary key,
  at              timestamptz not null default now(),
  organisation_id bigint,
  actor_kind      text        not null constraint audit_entry_actor_kind
                  check (actor_kind in ('person', 'key', 'command', 'visitor', 'system', 'database')),
  actor_id        text        not null,
  actor_name      text        not null,
  request_id      text        not null,
  address         text        not null,
  action          text        not null constraint audit_entry_action
                  check (action in ('created', 'changed', 'removed', 'revoked')),
  object          text        not null,
  object_id       text        not null,
  object_name     text        not null,
  before          jsonb       not null,
  after           jsonb       not null
);
create index audit_entry_by_organisation on access.audit_entry (organisation_id, at desc, id desc);
create index audit_entry_by_time on access.audit_entry (at desc, id desc);
comment on table  access.audit_entry is 'One change to one thing. Added by triggers alone; nobody changes or removes one.';
comment on column access.audit_entry.organisation_id is 'Whose thing it is; null: the installation''s';
comment on column access.audit_entry.actor_kind is
  'person: in the portal; key: over the API; command: `penstock` on the machine; visitor: not signed in; system: a process of ours by itself; database: SQL by hand';
comment on column access.audit_entry.object is 'The kind of thing, in words';
comment on column access.audit_entry.before is 'Fields that the change made another, as they were; secrets are not shown';
comment on column access.audit_entry.after is 'The same fields as they are now';

create function access.refuse_audit_change() returns trigger language plpgsql as $$
begin
  raise exception 'the audit log is only added to' using errcode = 'restrict_violation';
end $$;
create trigger append_only before update or delete on access.audit_entry
  for each row execute function access.refuse_audit_change();
create trigger append_only_whole before truncate on access.audit_entry
  for each statement execute function access.refuse_audit_change();
