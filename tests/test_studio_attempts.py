"""Guessing is slowed down: for each name and each address, in growing waits, in bounded memory."""

from __future__ import annotations

from studio.attempts import ADDRESS, LOGIN, Attempts, network


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def guesses_in(attempts: Attempts, clock: Clock, seconds: float, login: str, address: str) -> int:
    """How many wrong tries are looked at when somebody tries without pause."""
    end, looked_at = clock.now + seconds, 0
    while clock.now < end:
        wait = attempts.begin(login, address)
        looked_at += not wait
        clock.now += wait
    return looked_at


def test_a_few_tries_are_free_and_then_the_waits_grow() -> None:
    clock = Clock()
    attempts, waits = Attempts(clock), []
    for _ in range(LOGIN.free):
        assert attempts.begin("ada", "10.0.0.1") == 0
    for _ in range(7):
        wait = attempts.begin("ada", "10.0.0.1")
        waits.append(wait)
        assert attempts.begin("ada", "10.0.0.1") == wait  # asking again does not make it longer
        clock.now += wait
        assert attempts.begin("ada", "10.0.0.1") == 0
    assert waits == [2, 4, 8, 16, 32, 60, 60]


def test_a_day_of_guessing_at_one_name_gets_nowhere() -> None:
    clock = Clock()
    assert guesses_in(Attempts(clock), clock, 24 * 3600, "ada", "10.0.0.1") < 1500


def test_many_addresses_are_no_way_around_the_names_wait() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    looked_at = sum(attempts.begin("ada", f"10.0.{i // 250}.{i % 250}") == 0 for i in range(1000))
    assert looked_at == LOGIN.free


def test_many_names_are_no_way_around_the_addresss_wait() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    looked_at = sum(attempts.begin(f"person{i}", "10.0.0.1") == 0 for i in range(1000))
    assert looked_at == ADDRESS.free
    assert attempts.begin("ada", "10.0.0.2") == 0  # others do not wait
    v6 = sum(attempts.begin(f"other{i}", f"2001:db8::{i:x}") == 0 for i in range(1000))
    assert v6 == ADDRESS.free
    assert network("2001:db8::1") == network("2001:db8::ffff") != network("2001:db8:1::1")


def test_the_right_password_starts_afresh() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(100):
        assert attempts.begin("ada", "10.0.0.1") == 0
        attempts.right("ada", "10.0.0.1")
    for _ in range(LOGIN.free - 1):
        attempts.begin("ada", "10.0.0.1")
    assert attempts.begin("ada", "10.0.0.1") == 0
    attempts.right("ada", "10.0.0.1")
    assert attempts.begin("ada", "10.0.0.1") == 0


def test_ones_own_right_password_is_no_way_around_the_addresss_wait() -> None:
    """Signing in as oneself between guesses at others: each guess still counts."""
    clock = Clock()
    attempts, guesses = Attempts(clock), 0
    end = clock.now + 3600
    while clock.now < end:
        wait = attempts.begin(f"victim{guesses}", "10.0.0.1")
        guesses += not wait
        clock.now += wait
        wait = attempts.begin("mallory", "10.0.0.1")
        if not wait:
            attempts.right("mallory", "10.0.0.1")
        clock.now += wait
    assert guesses < 60


def test_memory_is_bounded_and_what_is_old_is_forgotten() -> None:
    clock = Clock()
    attempts = Attempts(clock, kept=50)
    for i in range(1000):
        attempts.begin(f"person{i}", f"10.1.{i // 250}.{i % 250}")
    assert len(attempts) <= 50
    for _ in range(LOGIN.free + 1):
        attempts.begin("ada", "10.0.0.1")
    assert attempts.begin("ada", "10.0.0.1") > 0
    clock.now += 2 * 3600
    assert attempts.begin("ada", "10.0.0.1") == 0
