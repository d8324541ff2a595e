-- A run that was gone on with has parts, and its row holds the start and end of the last one alone.
alter table runs add column earlier_s double default 0.0;            -- seconds that the parts before it took, the pauses left out
