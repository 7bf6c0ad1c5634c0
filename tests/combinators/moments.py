"""The notifications of a stream and their times, on virtual time."""

from reactivex.scheduler import VirtualTimeScheduler


def moments(observable, until=10_000.0, leave_at=None):
    """The notifications as (second, text).

    The text is that of a chunk, ``reset``, the class of an error, or ``|`` for the completion.
    """
    heard, scheduler = [], VirtualTimeScheduler()

    def note(what):
        heard.append((round(scheduler.now.timestamp(), 6), what))

    def shown(value):
        return "reset" if getattr(value, "reset", False) else str(value)

    subscription = observable.subscribe(
        lambda value: note(shown(value)),
        lambda error: note(type(error)),
        lambda: note("|"),
        scheduler=scheduler,
    )
    if leave_at is not None:
        scheduler.schedule_relative(leave_at, lambda *_: subscription.dispose())
    scheduler.advance_to(until)
    return heard
