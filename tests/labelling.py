"""Seeds for the labelling tests: projects with prompts and completions, made through the store's own functions."""

from __future__ import annotations

from data import completions, people, projects, prompts
from data.database import Database
from data.engine import Message
from data.records import Completion, Project, ProjectSettings, Prompt, Task

MODEL_NAME = "secret-model-7b"  # what no annotator may ever receive
RUN_ID = "run-of-the-secret-model"


def seed_project(
    db: Database,
    n_prompts: int = 10,
    n_completions: int = 2,
    task: Task = "pairwise",
    owner: str = "",
    categories: tuple[str, ...] = ("sums", "capitals", "sorting"),
    name: str = "Test project",
    guidelines: str = "Choose the answer that is **right** and short.",
    settings: ProjectSettings = ProjectSettings(),
) -> Project:
    """`n_prompts` prompts with `n_completions` different texts each, by as many models."""
    project = projects.create(db, name, task=task, owner=owner, guidelines=guidelines, settings=settings)
    asked = [
        prompt(project, f"Question number {i}: what is {i} + {i + 1}?", categories[i % len(categories)]) for i in range(n_prompts)
    ]
    prompts.add(db, asked)
    completions.add(db, [completion(p, f"Answer {k} to: {p.text}", k) for p in asked for k in range(n_completions)])
    return project


def prompt(project: Project, text: str, category: str = "", system: str = "") -> Prompt:
    turns = [Message("system", system)] if system else []
    return prompts.new(project.project_id, [*turns, Message("user", text)], category=category)


def completion(of: Prompt, text: str, k: int = 0) -> Completion:
    return completions.new(of, text, "generated", f"{MODEL_NAME}-{k}", run_id=RUN_ID, seed=k, sample_index=k)


def seed_texts(db: Database, texts: list[tuple[str, str, str]], task: Task = "pairwise", system: str = "") -> Project:
    """A project of (prompt, one answer, other answer)."""
    project = projects.create(db, "Texts", task=task)
    asked = [prompt(project, text, system=system) for text, _, _ in texts]
    prompts.add(db, asked)
    answers = [(completion(p, one, 0), completion(p, other, 1)) for p, (_, one, other) in zip(asked, texts, strict=True)]
    completions.add(db, [each for both in answers for each in both])
    return project


def join(db: Database, *annotators: str) -> None:
    for annotator_id in annotators:
        people.ensure(db, annotator_id, annotator_id, "local")
