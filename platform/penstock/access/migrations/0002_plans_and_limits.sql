-- How much of a busy model an organisation gets, and what keys and projects are limited to.

create table access.plan (
  name   text             primary key constraint plan_name_length check (length(name) between 1 and 100),
  weight double precision not null constraint plan_weight check (weight > 0 and weight <= 1000)
);
comment on table  access.plan is 'What an organisation is entitled to when there is not enough for all.';
comment on column access.plan.weight is 'Share of a busy model: weight 2 is served twice as much as weight 1';
insert into access.plan (name, weight) values ('standard', 1);

alter table access.organisation add column plan text not null default 'standard' references access.plan;
alter table access.project add column limits jsonb not null default '{}';
alter table access.api_key add column limits jsonb not null default '{}';
comment on column access.project.limits is 'Requests and tokens a minute and requests at once (penstock.access.limits.RateLimits), of all its keys together';
comment on column access.api_key.limits is 'The same, of this key alone';
