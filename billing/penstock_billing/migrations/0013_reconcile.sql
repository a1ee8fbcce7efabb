-- What reconciliations found.

create table billing.reconcile_run (
  id                bigint      generated always as identity primary key,
  since             timestamptz,
  until             timestamptz not null,
  began_at          timestamptz not null,
  took_ms           bigint      not null,
  differences       bigint      not null,
  unbilled_requests bigint      not null,
  report            jsonb       not null
);
create index reconcile_run_whole on billing.reconcile_run (id desc) where since is null;
comment on table  billing.reconcile_run is 'Each comparison of engines, journals, events, roll-ups and ledger, and what it found.';
comment on column billing.reconcile_run.since is 'The window''s beginning; null for everything there was';
comment on column billing.reconcile_run.unbilled_requests is 'Requests that engines worked on and nobody pays, by our rules';
comment on column billing.reconcile_run.report is 'As penstock billing reconcile --json prints it';

create trigger append_only before update or delete on billing.reconcile_run
  for each row execute function billing.refuse_change();
create trigger append_only_whole before truncate on billing.reconcile_run
  for each statement execute function billing.refuse_change();
revoke update, delete on billing.reconcile_run from penstock_app;
