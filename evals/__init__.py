"""The machine half: who answers better, by a judge and by rule, with the uncertainty of it. Free of torch; it speaks to an Engine.

    winrate.py         shares and differences with 95 % intervals clustered by prompt; pure functions
    verdicts.py        what a judge said in one order -> a reading; two readings -> a verdict; pure functions
    judge_templates.py what a judge is asked, and how hostile answers are made harmless; texts in judge_prompts/
    judge.py           ask an engine in both orders, again in words where need be, and warn when the judge is kin to the judged
    compare_args.py    what a compare run is asked to do
    engine_pool.py     one engine at a time, a stop heard while one is loaded
    compare_result.py  all numbers of a comparison from its judgments, and `summary(result)` in plain sentences
    compare.py         python -m evals.compare RUN_DIR

How to read a result: `win_rate` is B's against A's, a tie counting half; it says something only where its interval excludes 50 %.
`flip_rate` is how often the judge's two orders disagree (such a comparison is a tie), `first_slot` which slot it leans to.
Where a grader by rule covers the prompts, `accuracy_gain` is the truth the judge is held against.
"""
