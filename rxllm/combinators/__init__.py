"""Combinators: functions from models to a model. They retry, fall back, hedge, route, limit, cache and observe."""

from .cached import cached
from .fallback import fallback
from .hedge import hedge
from .limited import limited
from .observe import observe
from .retry import retry
from .route import route

__all__ = ["cached", "fallback", "hedge", "limited", "observe", "retry", "route"]
