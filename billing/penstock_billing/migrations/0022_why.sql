-- Events say how their request came to its engine: where its time went, and why that engine.

alter table billing.usage_event
  add column admit_us     bigint  not null default 0,
  add column wait_us      bigint  not null default 0,
  add column wake_us      bigint  not null default 0,
  add column retries      integer not null default 0,
  add column policy       text    not null default '',
  add column candidates   integer not null default 0,
  add column pool_version integer not null default 0;
comment on column billing.usage_event.queue_us is 'Microseconds from arrival until it was sent to the engine that it ended at';
comment on column billing.usage_event.admit_us is 'Microseconds of queue_us until its body was read and its key, limits and credit were checked';
comment on column billing.usage_event.wait_us is 'Microseconds of queue_us that it waited for its turn; the rest was lost at engines that failed it';
comment on column billing.usage_event.wake_us is 'Microseconds of wait_us in which no engine of its model was ready';
comment on column billing.usage_event.retries is 'Engines that failed it before this one';
comment on column billing.usage_event.policy is 'The routing policy that chose the engine; empty in events from before this was kept';
comment on column billing.usage_event.candidates is 'Engines with room that the policy chose from';
comment on column billing.usage_event.pool_version is 'The version of its pool that the engine ran; 0 is not known';
