-- What the installation earned hour by hour, by model and by organisation: operators' pages read no tenant's rows.

-- Nobody ships while the hours are summed up for the first time; see roll_ups.sql.
select pg_advisory_xact_lock(7306001203);

create table billing.earned_hour (
  hour            timestamptz not null,
  model           text,
  organisation_id bigint,
  requests        bigint      not null,
  tokens          bigint      not null,
  cost_nano_usd   bigint      not null,
  constraint earned_hour_identity unique nulls not distinct (hour, model, organisation_id),
  constraint earned_hour_of_one check ((model is null) <> (organisation_id is null))
) with (fillfactor = 90);
comment on table  billing.earned_hour is 'Sums of usage_hour over all tenants: a row for each model of an hour, and one for each organisation.';
comment on column billing.earned_hour.tokens is 'Input and output together.';

insert into billing.earned_hour (hour, model, organisation_id, requests, tokens, cost_nano_usd)
select hour, model, organisation_id, sum(requests), sum(input_tokens + output_tokens), sum(cost_nano_usd)
from billing.usage_hour
group by grouping sets ((hour, model), (hour, organisation_id));
