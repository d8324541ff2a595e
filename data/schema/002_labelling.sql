-- What labelling by several people needs. Shaped by four facts:
--   * A column that is added gets a default and no constraint: DuckDB allows no more, and rows of an older journal are without it.
--   * A view keeps the columns it was made with, so it is dropped before its table changes and made again after.
--   * An exclusion says something about a label and replaces nothing in it: what the annotator said last still stands behind it
--     and comes back with 'restored'.
--   * What decides about people (gold, adjudications) is append-only too; the newest row of an item counts.
drop view current_labels;

alter table projects add column settings text default '{}';          -- JSON of data.records.ProjectSettings
alter table completions add column flags text default '[]';          -- JSON [flag]: empty, truncated, error_text, identity_leak
alter table impressions add column repeat_of text default '';        -- kind repeat: the impression whose sides are swapped here
alter table label_events add column strength text default '';        -- '' | slightly | clearly
alter table label_events add column reasons text default '[]';       -- JSON [text], from the project's list
alter table label_events add column flags text default '[]';         -- JSON [flag]: what speaks against trusting this label
alter table label_events add column read_share double default 1.0;   -- how much of the longer answer was on the screen, 0..1
alter table label_events add column actor text default '';           -- who made the event, '' = the annotator

create view current_labels as
select e.* exclude (newest) from (
    select *, row_number() over (partition by impression_id order by seq desc) as newest
    from label_events where event in ('cast', 'revised', 'retracted')
) e
anti join (
    select impression_id from label_events where event in ('excluded', 'restored')
    qualify row_number() over (partition by impression_id order by seq desc) = 1 and event = 'excluded'
) x using (impression_id)
where e.newest = 1 and e.event in ('cast', 'revised');

create table gold (
    gold_id text primary key,
    project_id text not null,
    item_id text not null,            -- the pair's id, or the completion's in binary tasks
    outcome text not null,            -- in the pair's own order: first | second | tie | both_bad | good | bad; '' withdraws it
    source text not null,             -- entered | unanimous
    actor text not null,
    note text not null,
    created_at timestamptz not null
);

create table adjudications (
    adjudication_id text primary key,
    project_id text not null,
    item_id text not null,
    outcome text not null,            -- as in gold; '' takes it back
    reason text not null,
    actor text not null,
    created_at timestamptz not null
);

alter table people add column role text default 'annotator';         -- annotator | researcher | admin
alter table people add column pseudonym_key text default '';         -- with it a person's name in exports can be made again; destroyed on request

create table accounts (
    annotator_id text primary key,
    login text not null,              -- lower case; unique, which the writer checks
    password_hash text not null,      -- argon2id, salt and parameters included; '' = signs in elsewhere (Hugging Face)
    sessions_from timestamptz not null, -- a cookie signed before this is no longer good
    created_at timestamptz not null,
    disabled_at timestamptz
);

create table invitations (
    invitation_id text primary key,   -- sha256 of the token in the link: the link itself is stored nowhere
    role text not null,
    project_id text not null,         -- '' = every project
    invited_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    used_by text not null,            -- annotator_id, '' while open
    withdrawn_at timestamptz
);

create table members (
    member_id text primary key,       -- content_id(project_id, annotator_id)
    project_id text not null,
    annotator_id text not null,
    added_at timestamptz not null,
    removed_at timestamptz
);
