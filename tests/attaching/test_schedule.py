from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from weavemw.attaching.schedule import Schedule
from weavemw.attaching.tasks import Death, Look, Settle, Sweep


def taken(schedule, count):
    return [schedule.take() for _ in range(count)]


def test_keys_come_when_they_are_due():
    """The earliest comes first; a key that is put twice comes once, at the earlier time."""
    schedule = Schedule()
    schedule.put("late", 0.02)
    schedule.put("early", 0.01)
    schedule.put("twice", 60)
    schedule.put("twice", 0)
    assert taken(schedule, 3) == ["twice", "early", "late"]


def test_key_that_is_worked_on_waits_until_it_is_done():
    """One key is never with two threads; put meanwhile, it comes again afterwards."""
    schedule = Schedule()
    schedule.put("a")
    assert schedule.take() == "a"
    schedule.put("a")
    schedule.put("b", 0.01)
    assert schedule.take() == "b"
    schedule.done("a")
    assert schedule.take() == "a"
    schedule.done("a")
    schedule.done("b")
    assert len(schedule) == 0


def test_close_ends_all_waiting():
    """Closing ends every take, now and later."""
    schedule = Schedule()
    schedule.put("later", 60)
    waiting = threading.Barrier(3)

    def take():
        waiting.wait()
        return schedule.take()

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(take), pool.submit(take)]
        waiting.wait()
        schedule.close()
        assert [future.result(5) for future in futures] == [None, None]
    assert schedule.take() is None


def test_tasks_that_are_due_at_once_need_no_order():
    """Values of different types wait beside each other."""
    schedule = Schedule(clock=lambda: 0.0)
    tasks = {Settle("a"), Death("a"), Look(), Sweep()}
    for task in tasks:
        schedule.put(task)
    assert set(taken(schedule, 4)) == tasks


def test_one_that_becomes_due_while_its_waiter_works_is_taken_by_another():
    """Whoever takes a task leaves the waiting for the next one to others."""
    schedule, got = Schedule(), queue.SimpleQueue()

    def take():
        while (task := schedule.take()) is not None:
            got.put(task)
            if task == "long":
                waiting.wait(10)

    waiting = threading.Event()
    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    schedule.put("soon", 0.1)
    schedule.put("long")
    assert [got.get(timeout=5), got.get(timeout=5)] == ["long", "soon"]
    waiting.set()
    schedule.close()
    for thread in threads:
        thread.join(5)


def test_many_tasks_and_threads():
    """Each task is taken, whoever waits."""
    schedule, got = Schedule(), queue.SimpleQueue()

    def work():
        while (task := schedule.take()) is not None:
            got.put(task)
            schedule.done(task)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(work)
        for number in range(1000):
            schedule.put(number, number % 7 / 500)
        assert {got.get(timeout=10) for _ in range(1000)} == set(range(1000))
        schedule.close()
