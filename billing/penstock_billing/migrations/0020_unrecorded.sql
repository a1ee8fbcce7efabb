-- Requests that could not be recorded are free; reconciling should know why an engine worked for nobody.

create table billing.unrecorded_request (
  request_id text        primary key,
  ended_at   timestamptz not null,
  reason     text        not null,
  noted_at   timestamptz not null default now()
);
create index unrecorded_request_by_time on billing.unrecorded_request (ended_at);
comment on table billing.unrecorded_request is 'Requests whose record their gateway could not write: an error for the client, and free.';

create trigger append_only before update or delete on billing.unrecorded_request
  for each row execute function billing.refuse_change();
create trigger append_only_whole before truncate on billing.unrecorded_request
  for each statement execute function billing.refuse_change();
revoke update, delete on billing.unrecorded_request from penstock_app;
