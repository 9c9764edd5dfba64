"""Web server of an index: a REST interface and a search page, on this machine by default.

Modules: `guard` (limits, worker threads, checks of every request), `service` (queries of the index), `answers`
(response models), `site` (files for browsers), `server` (routes).
"""
