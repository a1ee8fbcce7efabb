-- How much credit a wallet had at the end of each day, so that nobody has to add up a month of entries to see it.

create table billing.credit_day (
  organisation_id bigint not null,
  project_id      bigint not null,
  day             date   not null,
  credit_nano_usd bigint not null,
  constraint credit_day_identity primary key (organisation_id, project_id, day)
);
comment on table  billing.credit_day is 'Credit of wallets at the end of UTC days, for days on which it changed; derived from entries.';
comment on column billing.credit_day.credit_nano_usd is 'Prepaid and promotional credit, what gateways held of it too; below 0 when overdrawn';

create table billing.credit_day_mark (
  day date not null
);
insert into billing.credit_day_mark (day) values ('1970-01-01');
comment on table billing.credit_day_mark is 'One row: days before this are noted in credit_day.';
grant select, insert, update, delete on billing.credit_day, billing.credit_day_mark to penstock_app;
