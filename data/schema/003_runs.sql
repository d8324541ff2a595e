-- What a queue that can be reordered and runs that belong together need.
--   * Places are compared, never counted: runs of before all have place 0 and so keep the order in which they were queued.
--   * Runs of a group differ in a few settings and share the data; the group is no row of its own, it is what its runs say.
alter table runs add column place double default 0.0;                -- order in the queue; the lower begins first
alter table runs add column group_id text default '';                -- runs that were started together to be held against each other
