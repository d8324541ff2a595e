-- The studio's tables. Shaped by four facts:
--   * DuckDB refuses updates of rows that foreign keys or secondary indexes point at, so there are neither: a parent's id is checked in Python.
--   * What people said is append-only (`label_events`); what is current is a view. The same for impressions: a row is written once, when served.
--   * Ids are text and, where a row has natural content (prompts, completions, pairs), derived from that content, so that importing or
--     ingesting the same thing twice adds nothing.
--   * Lists and free-form settings are JSON in a text column, written and read by Python alone.
create table projects (
    project_id text primary key,
    name text not null,
    task text not null,               -- pairwise | binary
    guidelines text not null,
    owner text not null,              -- '' = everybody; else the visitor whose throw-away project this is
    is_demo boolean not null,
    created_at timestamptz not null,
    archived_at timestamptz           -- archived is hidden, never destroyed
);

create table prompts (
    prompt_id text primary key,       -- sha256(project, messages, follow_up)[:24]
    project_id text not null,
    messages text not null,           -- JSON [{role, content}], ends with a user turn
    follow_up text not null,          -- JSON [content]: later user turns of a multi-turn question
    reference text not null,          -- a reference answer, '' when there is none
    category text not null,
    source text not null,             -- file name, hub id or 'demo'
    external_id text not null,
    split text not null,              -- train | held_out, by hash of the prompt, fixed once
    created_at timestamptz not null
);

create table completions (
    completion_id text primary key,   -- sha256(prompt, origin, model, adapter run, sampling, seed, sample_index, text)[:24]
    prompt_id text not null,
    project_id text not null,
    text text not null,
    origin text not null,             -- generated | imported
    model text not null,              -- model name in words; never leaves the researcher's pages
    model_id text not null,
    run_id text not null,             -- the run that wrote it, '' when imported
    sampling text not null,           -- JSON: temperature, top_p, max_new_tokens ...
    seed bigint not null,
    sample_index integer not null,
    finish_reason text not null,
    created_at timestamptz not null
);

create table pairs (
    pair_id text primary key,         -- sha256(sorted completion ids)[:24]
    project_id text not null,
    prompt_id text not null,
    completion_a text not null,
    completion_b text not null,
    rank integer not null,            -- 0 first: one pair of every prompt comes before a second pair of any
    created_at timestamptz not null
);

create table people (
    annotator_id text primary key,
    name text not null,
    kind text not null,               -- local | visitor | simulated | imported
    project_id text not null,         -- the project this person has open, '' before the first
    created_at timestamptz not null
);

create table impressions (
    impression_id text primary key,
    project_id text not null,
    annotator_id text not null,
    prompt_id text not null,
    pair_id text not null,            -- '' in binary tasks
    left_completion_id text not null,
    right_completion_id text not null, -- '' in binary tasks
    task text not null,               -- pairwise | binary
    kind text not null,               -- normal | gold | repeat | imported
    policy text not null,
    probability double not null,      -- with which the policy chose this item
    served_at timestamptz not null,
    lease_expires_at timestamptz not null
);

create table label_events (
    event_id uuid primary key,        -- made by the client: sending it again adds nothing
    seq bigint not null,              -- order of commit, given by the writer
    impression_id text not null,
    project_id text not null,
    annotator_id text not null,
    event text not null,              -- cast | revised | retracted | excluded
    preference text not null,         -- a | b | tie | both_bad | skip | good | bad; '' when retracted
    chosen_completion_id text not null, -- resolved from the impression's sides at commit; '' when neither
    rejected_completion_id text not null,
    note text not null,
    dwell_ms integer not null,
    simulated boolean not null,
    client_at timestamptz,
    created_at timestamptz not null
);

create view current_labels as
select * from (
    select *, row_number() over (partition by impression_id order by seq desc) as newest from label_events
) where newest = 1 and event in ('cast', 'revised');

create table models (
    model_id text primary key,
    project_id text not null,         -- '' = every project
    owner text not null,              -- '' = everybody; else a visitor
    name text not null,
    kind text not null,               -- base | adapter | endpoint | judge
    spec text not null,               -- JSON of data.engine.ModelSpec
    run_id text not null,             -- the run that made it, '' otherwise
    parent_model_id text not null,    -- the base or adapter under an adapter
    created_at timestamptz not null,
    removed_at timestamptz
);

create table snapshots (
    snapshot_id text primary key,
    project_id text not null,
    layout text not null,             -- preference | binary | sft: the TRL columns of the file
    path text not null,               -- relative to the workspace
    sha256 text not null,
    rows bigint not null,
    manifest text not null,           -- JSON
    created_at timestamptz not null
);

create table runs (
    run_id text primary key,
    project_id text not null,
    owner text not null,
    kind text not null,               -- sft | dpo | kto | generate | compare | hub_import
    name text not null,
    module text not null,             -- python -m <module>
    status text not null,             -- queued | running | finished | failed | stopped | lost
    device text not null,
    config text not null,             -- JSON, the run folder's config.json
    snapshot_id text not null,
    pid bigint not null,              -- 0 = not started
    pid_created double not null,      -- the process's create time: a pid alone may be somebody else's by now
    event_offset bigint not null,     -- bytes of events.jsonl already taken in
    progress text not null,           -- JSON of the last progress event
    result text not null,             -- JSON of the result event
    error text not null,
    queued_at timestamptz not null,
    started_at timestamptz,
    ended_at timestamptz
);

create table judgments (
    judgment_id text primary key,     -- sha256(run, prompt, sample_index, model_a, model_b)[:24]
    run_id text not null,
    project_id text not null,
    prompt_id text not null,
    sample_index integer not null,
    model_a text not null,
    model_b text not null,
    completion_a text not null,
    completion_b text not null,
    judge text not null,
    p_ab double,                      -- P(a is better) with a shown first; null = unscored
    p_ba double,                      -- P(a is better) with a shown second
    p double,                         -- mean of the two
    verdict text not null,            -- a | b | tie | '' when unscored
    flipped boolean,                  -- the two orders disagree
    unscored text not null,           -- the reason, '' when scored
    raw text not null,                -- JSON: what the judge said in both orders
    rule_a boolean,                   -- a grader by rule's opinion of each answer, null where none applies
    rule_b boolean,
    created_at timestamptz not null
);
