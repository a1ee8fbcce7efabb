-- How fast models were, summed up as requests are taken over: pages about speed never read events.

create function billing.speed_bucket(value double precision) returns smallint
language sql immutable strict parallel safe as $$ select floor(8 * ln(value) / ln(2.0::double precision))::smallint $$;
comment on function billing.speed_bucket is
  'The step of a scale on which each step is 2^(1/8), about 9 percent, above the one before.';

create table billing.speed_day (
  model    text     not null,
  day      date     not null,
  measure  text     not null constraint speed_day_measure check (measure in ('first_token', 'rate', 'answer')),
  bucket   smallint not null,
  shard    smallint not null,
  requests bigint   not null,
  constraint speed_day_identity primary key (model, day, measure, bucket, shard)
) with (fillfactor = 70);
create index speed_day_by_day on billing.speed_day (day);
comment on table  billing.speed_day is 'How many answered requests were how fast, by model and UTC day; written with the events.';
comment on column billing.speed_day.measure is
  'first_token: microseconds to the first token, of streamed answers; rate: thousandths of a token per second after it; answer: microseconds to the answer where no tokens are made';
comment on column billing.speed_day.bucket is 'speed_bucket of the measured value';
comment on column billing.speed_day.shard is 'Spreads the rows that many shippers add to; of no meaning';

create function billing.speeds_of(streamed boolean, output_tokens integer, first_token_us bigint, duration_us bigint)
returns table (measure text, bucket smallint) language sql immutable parallel safe as $$
  select kind, billing.speed_bucket(value)
  from (values
    ('first_token', case when streamed and output_tokens > 0 then first_token_us end::double precision),
    -- Of few tokens a rate says nothing.
    ('rate', case when streamed and output_tokens >= 8 and first_token_us > 0 and duration_us > first_token_us
       then (output_tokens - 1) * 1e9 / (duration_us - first_token_us) end),
    ('answer', case when output_tokens = 0 then duration_us end)
  ) as measured (kind, value)
  where value >= 1
$$;
comment on function billing.speeds_of is 'What an answered request tells of its model''s speed.';

insert into billing.speed_day (model, day, measure, bucket, shard, requests)
select model, (ended_at at time zone 'UTC')::date, measure, bucket, 0, count(*)
from billing.usage_event, billing.speeds_of(streamed, output_tokens, first_token_us, duration_us)
where outcome = 'done' and ended_at >= now() - interval '8 days'
group by 1, 2, 3, 4;
