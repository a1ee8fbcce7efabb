-- What organisations are limited to by their plan, all keys of an organisation together.

alter table access.plan add column limits jsonb not null default '{}';
comment on column access.plan.limits is 'Requests and tokens a minute and requests at once (penstock.access.limits.RateLimits), of each organisation that has the plan';
