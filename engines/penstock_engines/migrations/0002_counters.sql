create table engines.counter (
  boot          text        not null,
  sampled_at    timestamptz not null,
  replica       text        not null,
  model         text        not null,
  receipts      bigint      not null,
  input_tokens  bigint      not null,
  cached_tokens bigint      not null,
  output_tokens bigint      not null,
  constraint counter_identity primary key (boot, sampled_at)
);
create index counter_by_age on engines.counter (sampled_at);
comment on table  engines.counter is 'What engines'' own metrics said at moments without a request in hand; they begin anew with each start.';
comment on column engines.counter.boot is 'Which start of the engine, as its receipts say';
comment on column engines.counter.receipts is 'Requests that it had been done with, so lines of its receipts';
comment on column engines.counter.input_tokens is 'Prompt tokens of every choice of every request whose prompt was computed, aborted ones too';
comment on column engines.counter.output_tokens is 'Tokens made, those of aborted requests too';
