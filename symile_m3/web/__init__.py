"""Web services: what they answered, kept on disk, and manners towards them.

answers.py    the cache of answers
manners.py    rate limit, pauses and the breaker, shared by all processes of a machine
session.py    the HTTP session that clients are lent: timeouts, TLS verified, one turn a request
service.py    a service: ask it, and get what it answered, now or before
"""

from symile_m3.web.answers import Answers
from symile_m3.web.manners import Manners
from symile_m3.web.service import Service
from symile_m3.web.session import BadAnswerError

__all__ = ["Answers", "BadAnswerError", "Manners", "Service"]
