-- Engines on GPUs sleep instead of being stopped: their process lives, and their weights rest in memory.

alter table engines.replica
  drop constraint replica_state_known,
  add constraint replica_state_known check (state in ('starting', 'ready', 'draining', 'asleep', 'gone'));
